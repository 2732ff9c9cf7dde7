// Numbers, sizes and times as people read them, in the language of the page. Durations are seconds, times milliseconds since 1970.
import type { Duration, Timestamp } from '@bufbuild/protobuf/wkt';
import { words } from './words/words.ts';

const formats = new Map<string, Intl.NumberFormat>();

export function number(value: number, digits = 0): string {
  const { locale } = words.value;
  const name = `${locale} ${digits}`;
  let format = formats.get(name);
  if (!format) {
    format = new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits });
    formats.set(name, format);
  }
  return format.format(value);
}

export function percent(value: number, digits = 0): string {
  return `${number(value, digits)} %`;
}

/** Decimal units, as operating systems and networks count. */
export function bytes(count: number | bigint): string {
  let value = Number(count);
  if (value < 1000) return `${number(value)} B`;
  for (const unit of ['kB', 'MB', 'GB', 'TB']) {
    value /= 1000;
    if (value < 1000 || unit === 'TB') return `${number(value, value < 10 ? 1 : 0)} ${unit}`;
  }
  return '';
}

/** Two units at most: 12 ms, 9 s, 1 min 36 s, 2 h 5 min, 6 d. */
export function duration(seconds: number): string {
  const { unit } = words.value;
  const s = Math.max(0, seconds);
  if (s < 0.9995) return unit.ms(number(Math.round(s * 1000)));
  if (s < 9.95) return unit.s(number(s, 1));
  const whole = Math.round(s);
  if (whole < 60) return unit.s(number(whole));
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return joined(unit.min(number(minutes)), whole % 60, unit.s);
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return joined(unit.h(number(hours)), minutes % 60, unit.min);
  return unit.d(number(Math.floor(hours / 24)));
}

/** One unit, whole: for what changes every second and for ages. */
export function roughly(seconds: number): string {
  const { unit } = words.value;
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return unit.s(number(s));
  if (s < 3600) return unit.min(number(Math.floor(s / 60)));
  if (s < 172_800) return unit.h(number(Math.floor(s / 3600)));
  return unit.d(number(Math.floor(s / 86_400)));
}

/** Like `duration`, without fractions: for countdowns. */
export function countdown(seconds: number): string {
  return seconds < 60 ? words.value.unit.s(number(Math.max(0, Math.ceil(seconds)))) : duration(seconds);
}

function joined(first: string, rest: number, unit: (n: string) => string): string {
  return rest === 0 ? first : `${first} ${unit(number(rest))}`;
}

/** 14:15:28 */
export function clock(ms: number): string {
  return new Date(ms).toLocaleTimeString(words.value.locale, { hour12: false });
}

/** 14:15 today, with the day before it otherwise. */
export function moment(ms: number): string {
  const then = new Date(ms);
  const time = clock(ms);
  if (then.toDateString() === new Date().toDateString()) return time;
  return `${then.toLocaleDateString(words.value.locale, { day: 'numeric', month: 'short' })} ${time}`;
}

/** 14:10:38.204 */
export function clockMs(ms: number): string {
  return `${clock(ms)}.${String(Math.floor(ms) % 1000).padStart(3, '0')}`;
}

/** 1:28.56 */
export function timecode(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - minutes * 60).toFixed(2).padStart(5, '0')}`;
}

export function msOf(time: Timestamp | undefined): number | undefined {
  return time && Number(time.seconds) * 1000 + time.nanos / 1e6;
}

export function secondsOf(span: Duration | undefined): number | undefined {
  return span && Number(span.seconds) + span.nanos / 1e9;
}
