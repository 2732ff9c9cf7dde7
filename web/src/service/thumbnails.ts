// Small pictures of what was uploaded from this browser, by reference, in the browser's own database. Always true: they are for this browser alone,
// and losing them costs nothing but the picture.
const DATABASE = 'ffjobs';
const STORE = 'thumbnails';
const MOST = 2000;
const SIDE = 320;

let opened: Promise<IDBDatabase | undefined> | undefined;
/** Object URLs by reference; they live as long as the page. */
const urls = new Map<string, Promise<string | undefined>>();

export function thumbnailOf(reference: string): Promise<string | undefined> {
  if (!reference.startsWith('upload://')) return Promise.resolve(undefined);
  let url = urls.get(reference);
  if (!url) {
    url = read(reference).then((blob) => blob && URL.createObjectURL(blob));
    urls.set(reference, url);
  }
  return url;
}

export async function keepThumbnail(reference: string, picture: Blob): Promise<void> {
  urls.set(reference, Promise.resolve(URL.createObjectURL(picture)));
  const database = await open();
  if (!database) return;
  const store = database.transaction(STORE, 'readwrite').objectStore(STORE);
  store.put({ picture, at: Date.now() }, reference);
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

async function read(reference: string): Promise<Blob | undefined> {
  const database = await open();
  if (!database) return undefined;
  return await new Promise((resolve) => {
    const request = database.transaction(STORE).objectStore(STORE).get(reference);
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
