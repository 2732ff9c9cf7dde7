// A client of S3 or of any server that speaks its protocol. Knows no jobs: inputs, results and copies of results share what is here.
import { S3Client } from '@aws-sdk/client-s3';

export interface S3Connection {
  /** Of an S3-compatible server; undefined: that of AWS. */
  readonly endpoint: string | undefined;
  readonly region: string;
  /** Undefined: the SDK finds them where AWS keeps them (profile, container or instance role). */
  readonly credentials:
    | { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken?: string | undefined }
    | undefined;
  /** Buckets are named in the path and not in the host. Undefined: with an endpoint of one's own, where they seldom have host names. */
  readonly pathStyle?: boolean | undefined;
}

const CONNECT_MS = 10_000;

/** Holds connections until it is destroyed. `idleMs`: a request whose socket moves nothing for so long ends with a `TimeoutError`. */
export function openClient({ endpoint, region, credentials, pathStyle }: S3Connection, idleMs: number): S3Client {
  return new S3Client({
    region,
    endpoint,
    credentials,
    forcePathStyle: pathStyle ?? endpoint !== undefined,
    // A range has no checksum of its own, and digests are made where all bytes pass. What is sent is signed with its SHA-256, which servers verify;
    // the checksums that the SDK would add in trailers are not understood by all of them.
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestChecksumCalculation: 'WHEN_REQUIRED',
    requestHandler: { connectionTimeout: CONNECT_MS, socketTimeout: idleMs },
  });
}
