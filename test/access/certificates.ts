// Certificates for tests, made by openssl in a folder of their own: authorities, and what they sign, good from and until whenever a test says.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Signed {
  readonly subject: string;
  /** As openssl writes them: `DNS:a.example.com,URI:...`. */
  readonly names?: string;
  /** From now; the past for one that has run out. Default a day. */
  readonly seconds?: number;
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
/** Before all others, so that one that has run out was good once. */
const BEGIN = new Date('2020-01-01T00:00:00Z');

export class Certificates implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'ffjobs-certificates-'));

  addAuthority(name: string): void {
    this.#openssl('req', '-x509', ...NEW_KEY, '-keyout', `${name}.key`, '-out', `${name}.pem`, '-days', '2', '-subj', `/CN=${name}`);
    writeFileSync(join(this.dir, `${name}.index`), '');
    const own = `database=${name}.index\nunique_subject=no\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\npolicy=any\n`;
    const policy = '[any]\ncommonName=supplied\norganizationName=optional\n';
    writeFileSync(
      join(this.dir, `${name}.cnf`),
      `[ca]\ndefault_ca=own\n[own]\n${own}certificate=${name}.pem\nprivate_key=${name}.key\n${policy}`,
    );
  }

  sign(name: string, authority: string, { subject, names = 'DNS:localhost,IP:127.0.0.1', seconds = 86_400 }: Signed): void {
    writeFileSync(join(this.dir, `${name}.ext`), `subjectAltName=${names}`);
    this.#openssl('req', ...NEW_KEY, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', subject);
    const dates = ['-startdate', stamp(BEGIN), '-enddate', stamp(new Date(Date.now() + seconds * 1000))];
    const files = ['-in', `${name}.csr`, '-out', `${name}.pem`, '-extfile', `${name}.ext`];
    this.#openssl('ca', '-config', `${authority}.cnf`, '-batch', '-notext', '-preserveDN', ...files, ...dates);
  }

  path(file: string): string {
    return join(this.dir, file);
  }

  read(file: string): Buffer {
    return readFileSync(this.path(file));
  }

  /** Key and certificate for a TLS connection; nothing for no name. */
  pair(name: string | undefined): { readonly key?: Buffer; readonly cert?: Buffer } {
    return name === undefined ? {} : { key: this.read(`${name}.key`), cert: this.read(`${name}.pem`) };
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true });
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: this.dir, stdio: ['ignore', 'ignore', 'pipe'] });
  }
}

/** As `openssl ca` takes times: YYYYMMDDHHMMSSZ. */
function stamp(time: Date): string {
  return `${time.toISOString().replaceAll(/[-:T]|\.\d+Z/g, '')}Z`;
}
