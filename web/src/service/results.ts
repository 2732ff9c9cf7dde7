// Where a result is fetched from. The service signs the path and not the host, so a URL of its own blobs is taken from where this page came from,
// which is the one origin that the page's policy allows in any case.
import { ROOT } from '../router.ts';

const BLOBS = '/api/v1/blobs/';

export function resultUrl(signed: string): string {
  const at = signed.indexOf(BLOBS);
  return at < 0 ? signed : ROOT + signed.slice(at + 1);
}
