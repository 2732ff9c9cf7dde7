/** Keys that belong to a control are no shortcuts. */
export function isTyping(event: KeyboardEvent): boolean {
  if (!(event.target instanceof HTMLElement)) return false;
  return event.target.closest('input:not([type=checkbox], [type=range]), textarea, select, dialog, [contenteditable]') !== null;
}
