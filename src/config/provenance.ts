// How results are marked as made by AI, as the settings say. Always true: where somebody's results are to be marked, there are a certificate and a
// key to sign with.
import { resolve } from 'node:path';
import { LABEL, LABEL_WORDS } from '../jobs/tenants.ts';
import { oneOf, type Parse, Problem, setting, text, type ValuesOf } from './values.ts';

export interface ProvenanceConfig {
  /** Of tenants that the file of tenants says nothing else of. */
  readonly provenance: boolean;
  /** Text that is drawn over the picture; empty: none. */
  readonly provenanceLabel: string;
  /** Code of the IPTC's vocabulary, or `auto`. */
  readonly provenanceSourceType: string;
  /** Undefined: there is nothing to sign with. */
  readonly provenanceSigner: SignerFiles | undefined;
  /** Python with c2pa-python; undefined: that of the workers. */
  readonly provenancePython: string | undefined;
}

/** Paths, and where time stamps come from. */
export interface SignerFiles {
  /** Chain in PEM, the signer first. */
  readonly certificate: string;
  /** Private key in PEM. Read by the process that signs, and by no other. */
  readonly key: string;
  /** Roots in PEM that a manifest must lead to; undefined: any. */
  readonly trust: string | undefined;
  /** URL of a time-stamping authority (RFC 3161). */
  readonly timestamps: string | undefined;
}

/** Of https://cv.iptc.org/newscodes/digitalsourcetype/, those that fit what a face can be put through. */
const SOURCE_TYPES = [
  'compositeWithTrainedAlgorithmicMedia',
  'trainedAlgorithmicMedia',
  'compositeSynthetic',
  'compositeCapture',
  'algorithmicallyEnhanced',
] as const;
const label: Parse<string> = (value) => (LABEL.test(value) ? value : new Problem(LABEL_WORDS));

/** Part of `SETTINGS`. */
export const PROVENANCE_SETTINGS = {
  PROVENANCE: setting(
    oneOf('off', 'c2pa'),
    'off',
    'c2pa: each result is marked as made by AI, with a signed C2PA manifest and XMP; FFJOBS_TENANTS may say otherwise for a tenant',
  ),
  PROVENANCE_CERT: setting(text, undefined, 'certificate chain in PEM that manifests are signed with, the signer first'),
  PROVENANCE_KEY: setting(text, undefined, 'its private key in PEM; read by the process that signs alone'),
  PROVENANCE_TRUST: setting(
    text,
    undefined,
    'roots in PEM: a manifest that does not lead to one of them fails the job; default: any will do',
  ),
  PROVENANCE_TSA: setting(
    text,
    undefined,
    'URL of a time-stamping authority (RFC 3161), whose stamp keeps manifests valid beyond the life of the certificate; default: none',
  ),
  PROVENANCE_LABEL: setting(
    label,
    '',
    'text that is drawn over the picture, such as AI-generated; empty: none. Videos are encoded anew for it',
  ),
  PROVENANCE_SOURCE_TYPE: setting(
    oneOf('auto', ...SOURCE_TYPES),
    'auto',
    "digital source type of the IPTC; auto: by engine, compositeWithTrainedAlgorithmicMedia for FaceFusion and for an engine of one's own",
  ),
  PROVENANCE_PYTHON: setting(text, undefined, 'Python with c2pa-python (worker/requirements-provenance.txt); default: that of the workers'),
} as const;

type Values = ValuesOf<typeof PROVENANCE_SETTINGS>;

/** One sentence a problem; what is not set because it was wrong is passed over. */
export function provenanceProblems(v: Values): string[] {
  const problems: string[] = [];
  if ((v.PROVENANCE_CERT === undefined) !== (v.PROVENANCE_KEY === undefined)) {
    problems.push('FFJOBS_PROVENANCE_CERT and FFJOBS_PROVENANCE_KEY go together; set both or neither');
  } else if (v.PROVENANCE === 'c2pa' && v.PROVENANCE_CERT === undefined) {
    problems.push(
      'FFJOBS_PROVENANCE=c2pa needs FFJOBS_PROVENANCE_CERT and FFJOBS_PROVENANCE_KEY to sign with; ' +
        '`ffjobs provenance certificate` makes a pair for trials',
    );
  }
  if (v.PROVENANCE_TSA !== undefined && !(/^https?:/.test(v.PROVENANCE_TSA) && URL.canParse(v.PROVENANCE_TSA))) {
    problems.push(`FFJOBS_PROVENANCE_TSA is '${v.PROVENANCE_TSA}'; allowed: an http or https URL`);
  }
  return problems;
}

/** Of values without problems. */
export function provenanceConfig(v: Values, cwd: string): ProvenanceConfig {
  const path = (value: string | undefined) => (value === undefined ? undefined : resolve(cwd, value));
  const [certificate, key] = [path(v.PROVENANCE_CERT), path(v.PROVENANCE_KEY)];
  return {
    provenance: v.PROVENANCE === 'c2pa',
    provenanceLabel: v.PROVENANCE_LABEL!,
    provenanceSourceType: v.PROVENANCE_SOURCE_TYPE!,
    provenanceSigner:
      certificate === undefined || key === undefined
        ? undefined
        : Object.freeze({ certificate, key, trust: path(v.PROVENANCE_TRUST), timestamps: v.PROVENANCE_TSA }),
    provenancePython: v.PROVENANCE_PYTHON,
  };
}
