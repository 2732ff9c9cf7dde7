// Names of objects as callers and operators write them, `s3://bucket/key`. Always true here: what passes is a plain bucket of AWS's form and a key
// that no server reads as a way out of its bucket or prefix.

export interface S3Place {
  readonly bucket: string;
  /** Letter for letter; nothing is decoded. */
  readonly key: string;
}

const MAX_KEY_BYTES = 1024;

/** The object that a URI names, or what is wrong with it, in words. A key may be empty or end with '/': what that means is the caller's affair. */
export function placeOf(uri: string): S3Place | string {
  const [, bucket, key = ''] = /^s3:\/\/([^/]*)(?:\/(.*))?$/is.exec(uri) ?? [];
  // Nothing that is an address, an ARN or has a user in it.
  if (bucket === undefined || !/^(?!\d+\.\d+\.\d+\.\d+$)[a-z\d](?!.*\.\.)[a-z\d.-]{1,61}[a-z\d]$/.test(bucket)) {
    return 'this is not s3://bucket/key with the plain name of a bucket';
  }
  if (Buffer.byteLength(key) > MAX_KEY_BYTES) return `the name of an object has at most ${MAX_KEY_BYTES} bytes`;
  // A server that keeps objects as files would follow these, out of the bucket or of the prefix that is allowed.
  if (key.split(/[/\\]/).some((part, i, parts) => part === '.' || part === '..' || (part === '' && i === 0 && parts.length > 1))) {
    return "the name of an object does not begin with '/', and has no '.' or '..' between slashes";
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (/[\x00-\x1f\x7f]/.test(key) || !key.isWellFormed()) return 'the name of an object has no control characters';
  return { bucket, key };
}

/** Whether a bucket is one of those listed, of which `*` stands for all. */
export function isListed(bucket: string, buckets: readonly string[]): boolean {
  return buckets.includes('*') || buckets.includes(bucket);
}

/** Whether an object is in one of the places listed, each `bucket` or `bucket/prefix`. */
export function isWithin(bucket: string, key: string, places: readonly string[]): boolean {
  return places.some((place) => {
    const slash = place.indexOf('/');
    return slash < 0 ? bucket === place : bucket === place.slice(0, slash) && key.startsWith(place.slice(slash + 1));
  });
}
