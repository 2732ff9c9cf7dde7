// The language of the page. Always true: `words.value` is whole in one language, and `<html lang>` says which.
import { signal } from '@preact/signals';
import { en, type Words } from './en.ts';

export type { Words };
export type Language = 'en' | 'zh';

const KEPT = 'ffjobs.language';

export const language = signal<Language>('en');
export const words = signal<Words>(en);

/** Of the browser, unless another one was chosen here before. */
export async function startLanguage(): Promise<void> {
  const kept = localStorage.getItem(KEPT);
  const wanted = kept ?? (navigator.languages.find((one) => /^(zh|en)\b/i.test(one)) ?? 'en').slice(0, 2).toLowerCase();
  await speak(wanted === 'zh' ? 'zh' : 'en');
}

export async function switchLanguage(): Promise<void> {
  const next = language.value === 'en' ? 'zh' : 'en';
  await speak(next);
  localStorage.setItem(KEPT, next);
}

async function speak(next: Language): Promise<void> {
  words.value = next === 'zh' ? (await import('./zh.ts')).zh : en;
  language.value = next;
  document.documentElement.lang = next === 'zh' ? 'zh-CN' : 'en';
}
