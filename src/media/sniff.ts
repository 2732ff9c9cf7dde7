// The media type of a file, told by its first bytes (the signatures of https://mimesniff.spec.whatwg.org and of the formats themselves).
// The engine's decoders decide in the end; this keeps out what they would never take.

/** Bytes that are enough to tell. */
export const SNIFF_BYTES = 4096;

/** What `mediaTypeOf` knows, by the names that people use. */
export const UPLOAD_TYPES = ['JPEG', 'PNG', 'WebP', 'MP4', 'MOV', 'WebM', 'MKV', 'AVI', 'WAV', 'MP3', 'M4A', 'FLAC', 'Ogg'] as const;

/** Top-level boxes that an old QuickTime file without `ftyp` begins with. */
const QUICKTIME_BOXES = ['moov', 'mdat', 'wide', 'free', 'skip'];
/** Pictures in the same container as MP4. */
const STILL_BRANDS = ['heic', 'heix', 'heim', 'heis', 'mif1', 'msf1', 'avif', 'avis'];

export function mediaTypeOf(head: Uint8Array): string | undefined {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.length);
  const text = (from: number, to: number) => bytes.toString('latin1', from, to);
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return 'image/jpeg';
  if (text(0, 8) === '\x89PNG\r\n\x1a\n') return 'image/png';
  if (text(0, 4) === 'RIFF') {
    return { WEBP: 'image/webp', 'AVI ': 'video/x-msvideo', WAVE: 'audio/wav' }[text(8, 12)];
  }
  const box = text(4, 8);
  if (box === 'ftyp') {
    const brand = text(8, 12);
    if (STILL_BRANDS.includes(brand)) return undefined;
    if (brand === 'qt  ') return 'video/quicktime';
    return brand === 'M4A ' ? 'audio/mp4' : 'video/mp4';
  }
  if (QUICKTIME_BOXES.includes(box)) return 'video/quicktime';
  if (text(0, 4) === '\x1aE\xdf\xa3') {
    const header = text(4, 128);
    if (header.includes('webm')) return 'video/webm';
    return header.includes('matroska') ? 'video/x-matroska' : undefined;
  }
  if (text(0, 4) === 'fLaC') return 'audio/flac';
  if (text(0, 4) === 'OggS') return 'audio/ogg';
  if (text(0, 3) === 'ID3' || isMp3Frame(bytes)) return 'audio/mpeg';
  return undefined;
}

/** MPEG audio frame header of layer III: eleven sync bits, a version, the layer, a bit rate and a sample rate that exist. */
function isMp3Frame(bytes: Buffer): boolean {
  if (bytes.length < 4 || bytes[0] !== 0xff || (bytes[1]! & 0xe0) !== 0xe0) return false;
  const version = (bytes[1]! >> 3) & 3;
  const layer = (bytes[1]! >> 1) & 3;
  const bitRate = bytes[2]! >> 4;
  const sampleRate = (bytes[2]! >> 2) & 3;
  return version !== 1 && layer === 1 && bitRate !== 0 && bitRate !== 15 && sampleRate !== 3;
}
