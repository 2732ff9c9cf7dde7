// Which schema of what is kept in Redis this version knows, and what is said where a store has another one.

/** A store of another one is not touched, but by `migrateRedisJobStore`. */
export const SCHEMA = 4;

const COMMAND = '`ffjobs store migrate` with the settings of the fleet';

/** Why a store of that schema, which is on its way to another one or not, cannot be used; undefined: it can. */
export function schemaProblem(schema: number, migrating: number | undefined, shown: string): string | undefined {
  if (schema > SCHEMA) return newerSchema(schema, SCHEMA, shown);
  if (migrating !== undefined)
    return `the job store ${shown} is on its way to schema ${migrating}: wait for ${COMMAND} to end, or run it again where it was broken off`;
  if (schema === SCHEMA) return undefined;
  // Schema 1 is the first: what claims an older one was not made by this program.
  if (!(schema >= 1))
    return `the job store ${shown} has schema ${schema}, which no version has made: give this fleet another name with FFJOBS_FLEET`;
  return `the job store ${shown} has schema ${schema}, and this version needs ${SCHEMA}: stop every node of the fleet, keep a copy, and run ${COMMAND}`;
}

export function newerSchema(schema: number, known: number, shown: string): string {
  return `the job store ${shown} has schema ${schema}, made by a newer version; this one knows ${known}: run the newer version`;
}
