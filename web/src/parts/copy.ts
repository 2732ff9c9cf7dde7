/** Puts a text where it can be pasted from. */
export async function copyText(value: string): Promise<void> {
  // Outside of HTTPS and localhost browsers have no clipboard for pages.
  if (navigator.clipboard) await navigator.clipboard.writeText(value);
  else copyBySelection(value);
}

function copyBySelection(value: string): void {
  const area = document.createElement('textarea');
  area.value = value;
  area.className = 'sr';
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}
