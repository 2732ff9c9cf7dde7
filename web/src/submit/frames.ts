// Places in a video as people write them.

/** The frame that a text means; undefined: none, and NaN: it means nothing. A whole number is a frame, `1:28.5` or `12.5` a time. */
export function frameOf(text: string, framesPerSecond: number | undefined): number | undefined {
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  if (/^\d+$/.test(trimmed)) return trimmed.length < 10 ? Number(trimmed) : Number.NaN;
  const [, hours, minutes, seconds] = /^(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)$/.exec(trimmed) ?? [];
  if (seconds === undefined || framesPerSecond === undefined) return Number.NaN;
  return Math.round((Number(hours ?? 0) * 3600 + Number(minutes ?? 0) * 60 + Number(seconds)) * framesPerSecond);
}
