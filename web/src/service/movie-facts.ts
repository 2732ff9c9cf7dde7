// What an MP4 or MOV says of itself in its own tables (ISO/IEC 14496-12): no browser tells of frames. Always true: nothing is said that the file does not, and a file
// that lies costs only what is said of it.

export interface MediaFacts {
  readonly width: number;
  readonly height: number;
  readonly seconds?: number | undefined;
  readonly frames?: number | undefined;
  /** Unset where it changes over the video, so that a time is no frame. */
  readonly framesPerSecond?: number | undefined;
  readonly codec?: string | undefined;
  readonly sound?: string | undefined;
}

/** A larger table is not read. */
const MOST_TABLE = 64 * 1024 * 1024;
/** A film in pieces has some thousands; its tables stand before or behind all of them. */
const MOST_BOXES = 10_000;

const CODECS: Readonly<Record<string, string>> = {
  avc1: 'H.264',
  avc3: 'H.264',
  hvc1: 'HEVC',
  hev1: 'HEVC',
  av01: 'AV1',
  vp09: 'VP9',
  mp4v: 'MPEG-4',
  apch: 'ProRes',
  apcn: 'ProRes',
  mp4a: 'AAC',
  'ac-3': 'AC-3',
  'ec-3': 'E-AC-3',
};

interface Box {
  readonly type: string;
  readonly body: DataView;
}

/** Undefined: it is no such file, or not one whose tables tell. */
export async function movieFacts(file: Blob): Promise<MediaFacts | undefined> {
  const movie = await findMovie(file);
  if (!movie) return undefined;
  const tracks = [...boxesIn(movie)].filter(({ type }) => type === 'trak').map(trackOf);
  const video = tracks.find((track) => track?.kind === 'vide');
  if (!video || video.frames === 0 || video.ticks === 0 || video.timescale === 0) return undefined;
  const seconds = video.ticks / video.timescale;
  return {
    width: video.width,
    height: video.height,
    seconds,
    frames: video.frames,
    framesPerSecond: video.steady ? video.frames / seconds : undefined,
    codec: video.codec,
    sound: tracks.find((track) => track?.kind === 'soun')?.codec,
  };
}

/** The `moov` box, which may lie behind all of the media. */
async function findMovie(file: Blob): Promise<DataView | undefined> {
  for (let at = 0, boxes = 0; at + 8 <= file.size && boxes < MOST_BOXES; boxes++) {
    const head = new DataView(await file.slice(at, at + 16).arrayBuffer());
    const type = name(head, 4);
    // What does not begin with a name of four letters is no such file.
    if (at === 0 && !/^(ftyp|moov|mdat|wide|free|skip)$/.test(type)) return undefined;
    const wide = head.getUint32(0) === 1;
    const size = wide ? Number(head.getBigUint64(8)) : head.getUint32(0) || file.size - at;
    const header = wide ? 16 : 8;
    if (size < header) return undefined;
    if (type === 'moov') {
      if (size > MOST_TABLE) return undefined;
      return new DataView(await file.slice(at + header, at + size).arrayBuffer());
    }
    at += size;
  }
  return undefined;
}

function* boxesIn(view: DataView, from = 0): Generator<Box> {
  for (let at = from; at + 8 <= view.byteLength; ) {
    const size = view.getUint32(at);
    if (size < 8 || at + size > view.byteLength) return;
    yield { type: name(view, at + 4), body: new DataView(view.buffer, view.byteOffset + at + 8, size - 8) };
    at += size;
  }
}

function trackOf({ body }: Box) {
  const find = (view: DataView | undefined, type: string) => view && [...boxesIn(view)].find((box) => box.type === type)?.body;
  const media = find(body, 'mdia');
  const [head, time, handler] = [find(body, 'tkhd'), find(media, 'mdhd'), find(media, 'hdlr')];
  const table = find(find(media, 'minf'), 'stbl');
  const [entries, times] = [find(table, 'stsd'), find(table, 'stts')];
  if (!head || !time || !handler || !entries || !times) return undefined;
  const code = name(entries, 12);
  return {
    kind: name(handler, 8),
    // 16.16, at the end.
    width: Math.round(head.getUint32(head.byteLength - 8) / 65_536),
    height: Math.round(head.getUint32(head.byteLength - 4) / 65_536),
    timescale: time.getUint32(time.getUint8(0) === 1 ? 20 : 12),
    codec: CODECS[code] ?? code.trim(),
    ...lengthOf(times),
  };
}

/** How many frames there are, how long in all, and whether all but a few are as long as each other. */
function lengthOf(times: DataView) {
  const runs = new Map<number, number>();
  let frames = 0;
  let ticks = 0;
  for (let i = 0; i < times.getUint32(4); i++) {
    const [count, each] = [times.getUint32(8 + 8 * i), times.getUint32(12 + 8 * i)];
    frames += count;
    ticks += count * each;
    runs.set(each, (runs.get(each) ?? 0) + count);
  }
  const usual = frames === 0 ? 0 : ticks / frames;
  const near = [...runs].reduce((sum, [each, count]) => sum + (Math.abs(each - usual) <= Math.max(1, usual * 0.1) ? count : 0), 0);
  return { frames, ticks, steady: near >= frames - Math.max(2, frames * 0.01) };
}

function name(view: DataView, at: number): string {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
}
