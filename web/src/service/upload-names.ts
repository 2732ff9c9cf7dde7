// What files were called that were uploaded from this browser: an upload's id says nothing to people. Always true: losing them costs nothing but the name.
import { words } from '../words/words.ts';

const KEPT = 'ffjobs.names';
const MOST = 500;
const UPLOAD = 'upload://';

/** `uri`: upload://ID */
export function keepUploadName(uri: string, name: string): void {
  const { [uri]: _, ...others } = all();
  localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries([...Object.entries(others).slice(1 - MOST), [uri, name]])));
}

/** What to call an upload; undefined: the reference is another one. */
export function uploadName(reference: string): string | undefined {
  if (!reference.startsWith(UPLOAD)) return undefined;
  return all()[reference] ?? numbered(reference);
}

/** Whether that is all that there is to call it by. */
export function isNameless(reference: string, name: string): boolean {
  return reference.startsWith(UPLOAD) && name === numbered(reference);
}

const numbered = (reference: string) => words.value.uploadNamed(reference.slice(UPLOAD.length, UPLOAD.length + 8));

function all(): Record<string, string> {
  try {
    return JSON.parse(localStorage.getItem(KEPT) ?? '{}') as Record<string, string>;
  } catch {
    return {};
  }
}
