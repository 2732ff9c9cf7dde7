// The caller's key, where the service asks for one. Always true: it lives in this tab's session storage and in one request header, nowhere else.
import { signal } from '@preact/signals';

const KEPT = 'ffjobs.key';

export const key = signal(sessionStorage.getItem(KEPT) ?? '');
/** The service asked for a key and has not got one that it takes: `missing`, or `wrong` after one was tried. */
export const keyWanted = signal<'missing' | 'wrong' | undefined>(undefined);

export function useKey(next: string): void {
  key.value = next.trim();
  if (key.value === '') sessionStorage.removeItem(KEPT);
  else sessionStorage.setItem(KEPT, key.value);
  keyWanted.value = undefined;
}

/** What a request carries. */
export function authorization(): Readonly<Record<string, string>> {
  return key.value === '' ? {} : { authorization: `Bearer ${key.value}` };
}

/** `sent`: the key that was refused. One that has been replaced meanwhile says nothing of the one that is used now. */
export function keyRefused(sent: string): void {
  if (sent !== key.value) return;
  keyWanted.value = key.value === '' ? 'missing' : 'wrong';
}
