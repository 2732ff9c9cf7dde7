// How a browser is to treat a result and under which name, for whoever serves it.

/** RFC 6266: a plain name for old clients and the exact one in UTF-8. Pictures, video and sound open in the browser, the rest is saved. */
export function disposition(filename: string, mediaType: string): string {
  const plain = filename.replaceAll(/[^\x20-\x7e]/g, '_').replaceAll(/["\\%/]/g, '_');
  const exact = encodeURIComponent(filename).replaceAll(/['()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
  const kind = /^(image\/(jpeg|png|webp)|video\/|audio\/)/.test(mediaType) ? 'inline' : 'attachment';
  return `${kind}; filename="${plain}"; filename*=UTF-8''${exact}`;
}
