// What a file is that was chosen here: its size in pixels, and of a video its length, frames and codecs, from its own tables or as far as the browser tells.
import { type MediaFacts, movieFacts } from './movie-facts.ts';

const PATIENCE_MS = 8_000;

export async function factsOf(file: Blob): Promise<MediaFacts | undefined> {
  try {
    if (!file.type.startsWith('video/')) {
      const { width, height } = await createImageBitmap(file);
      return { width, height };
    }
    return (await movieFacts(file)) ?? (await shownFacts(file));
  } catch {
    return undefined;
  }
}

/** As the browser shows it. */
function shownFacts(file: Blob): Promise<MediaFacts> {
  const url = URL.createObjectURL(file);
  const video = document.createElement('video');
  video.preload = 'metadata';
  return new Promise<MediaFacts>((resolve, reject) => {
    setTimeout(reject, PATIENCE_MS);
    video.onerror = reject;
    video.onloadedmetadata = () => {
      const { videoWidth: width, videoHeight: height, duration } = video;
      resolve({ width, height, seconds: Number.isFinite(duration) ? duration : undefined });
    };
    video.src = url;
  }).finally(() => URL.revokeObjectURL(url));
}
