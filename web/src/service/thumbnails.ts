// Small pictures of jobs' inputs, in the browser's own database. Always true: they are for this browser alone,
// and losing them costs nothing but the picture.
import { fetchInput } from './inputs.ts';

const DATABASE = 'ffjobs';
const STORE = 'thumbnails';
const MOST = 2000;
const SIDE = 320;
/** A larger picture is not fetched to be shown small. */
const MOST_BYTES = 8 * 1024 * 1024;

let opened: Promise<IDBDatabase | undefined> | undefined;
/** Object URLs by name; they live as long as the page. */
const urls = new Map<string, Promise<string | undefined>>();

/** Names of what has no picture. */
const without = new Set<string>();

/** An upload never changes; a file under the input root may, so its picture is that of one day's jobs. */
function nameOf(reference: string, jobId: string): string {
  return reference.startsWith('upload://') ? reference : `${jobId.split('_')[1]} ${reference}`;
}

/** Of what was uploaded from this browser; undefined where there is none. */
export function thumbnailOf(reference: string, jobId = ''): Promise<string | undefined> {
  const name = nameOf(reference, jobId);
  let url = urls.get(name);
  if (!url) {
    url = read(name).then((blob) => blob && URL.createObjectURL(blob));
    urls.set(name, url);
  }
  return url;
}

/** The same, asking the service where there is none. It waits for its turn, so that a list that is scrolled asks for what is in sight. */
export async function jobThumbnail(jobId: string, input: string, reference: string, signal: AbortSignal): Promise<string | undefined> {
  const name = nameOf(reference, jobId);
  const known = await thumbnailOf(reference, jobId);
  if (known !== undefined || without.has(name) || /^(https?|s3|job):/i.test(reference)) return known;
  return await inTurn(async () => {
    // Another row may have asked for it meanwhile.
    const meanwhile = await thumbnailOf(reference, jobId);
    if (meanwhile !== undefined || without.has(name)) return meanwhile;
    const file = signal.aborted ? undefined : await fetchInput(jobId, input, MOST_BYTES, signal);
    if (signal.aborted) return undefined;
    const picture = file?.type.startsWith('image/') ? await drawThumbnail(file) : undefined;
    // What cannot be shown is not asked for again.
    if (picture) await keepThumbnail(name, picture);
    else without.add(name);
    return picture && (await thumbnailOf(reference, jobId));
  });
}

const AT_ONCE = 2;
let running = 0;
const queue: (() => void)[] = [];

/** The last to come is first: it is what somebody looks at now. */
async function inTurn<T>(run: () => Promise<T>): Promise<T> {
  if (running >= AT_ONCE) await new Promise<void>((resolve) => queue.push(resolve));
  running++;
  try {
    return await run();
  } finally {
    running--;
    queue.pop()?.();
  }
}

export async function keepThumbnail(name: string, picture: Blob): Promise<void> {
  urls.set(name, Promise.resolve(URL.createObjectURL(picture)));
  const database = await open();
  if (!database) return;
  const store = database.transaction(STORE, 'readwrite').objectStore(STORE);
  store.put({ picture, at: Date.now() }, name);
  const count = store.count();
  count.onsuccess = () => {
    if (count.result <= MOST) return;
    // The oldest go, some at a time.
    let surplus = count.result - MOST + 100;
    const cursor = store.index('at').openCursor();
    cursor.onsuccess = () => {
      if (!cursor.result || surplus-- <= 0) return;
      cursor.result.delete();
      cursor.result.continue();
    };
  };
}

/** A small JPEG of a picture, or of a video near its beginning; undefined for what the browser cannot show. */
export async function drawThumbnail(file: Blob): Promise<Blob | undefined> {
  const url = URL.createObjectURL(file);
  try {
    return file.type.startsWith('video/') ? await drawn(await videoFrame(url)) : await drawn(await createImageBitmap(file));
  } catch {
    return undefined;
  } finally {
    URL.revokeObjectURL(url);
  }
}

async function drawn(source: ImageBitmap | HTMLVideoElement): Promise<Blob | undefined> {
  const [width, height] = source instanceof HTMLVideoElement ? [source.videoWidth, source.videoHeight] : [source.width, source.height];
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  canvas.getContext('2d')?.drawImage(source, 0, 0, canvas.width, canvas.height);
  return await canvas.convertToBlob({ type: 'image/jpeg', quality: 0.8 });
}

function videoFrame(url: string): Promise<HTMLVideoElement> {
  return new Promise((resolve, reject) => {
    const video = document.createElement('video');
    const timer = setTimeout(() => reject(new Error('no frame came')), 8000);
    video.muted = true;
    video.preload = 'auto';
    video.onloadeddata = () => {
      video.currentTime = Math.min(0.1, video.duration / 2 || 0);
    };
    video.onseeked = () => {
      clearTimeout(timer);
      resolve(video);
    };
    video.onerror = () => {
      clearTimeout(timer);
      reject(new Error('the browser cannot show this video'));
    };
    video.src = url;
  });
}

async function read(name: string): Promise<Blob | undefined> {
  const database = await open();
  if (!database) return undefined;
  return await new Promise((resolve) => {
    const request = database.transaction(STORE).objectStore(STORE).get(name);
    request.onsuccess = () => resolve((request.result as { picture: Blob } | undefined)?.picture);
    request.onerror = () => resolve(undefined);
  });
}

/** Undefined where the browser gives pages no database, as in some private windows. */
function open(): Promise<IDBDatabase | undefined> {
  opened ??= new Promise((resolve) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE).createIndex('at', 'at');
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(undefined);
  });
  return opened;
}
