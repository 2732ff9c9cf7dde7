// Claims that wait, as both stores keep them.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Lease } from '../src/jobs/ports.ts';
import { type WaitingClaim, WaitingClaims } from '../src/store/waiting-claims.ts';

const LEASE = {} as Lease;

function waiting() {
  const claims = new WaitingClaims();
  const abort = new AbortController();
  let claim: WaitingClaim | undefined;
  const lease = claims.wait({ node: 'a' }, abort.signal, (begun) => {
    claim = begun;
  });
  return { claims, claim: claim!, lease, abort, open: () => [...claims.open()].length };
}

describe('a claim that waits', () => {
  it('is over when its caller leaves', async () => {
    const { lease, abort, open } = waiting();
    abort.abort();
    assert.equal(await lease, undefined);
    assert.equal(open(), 0);
  });

  it('is answered with the job that is just being looked for, though its caller has left', async () => {
    const { claim, lease, abort } = waiting();
    claim.take();
    abort.abort();
    claim.settle(LEASE);
    assert.equal(await lease, LEASE);
  });

  it('is over when nothing was found and its caller has left meanwhile', async () => {
    const { claim, lease, abort, open } = waiting();
    claim.take();
    assert.equal(open(), 0, 'nobody else looks for it');
    abort.abort();
    claim.putBack();
    assert.equal(await lease, undefined);
    assert.equal(open(), 0);
  });

  it('waits on when nothing was found', async () => {
    const { claims, claim, lease, open } = waiting();
    claim.take();
    claim.putBack();
    assert.equal(open(), 1);
    claims.end();
    assert.equal(await lease, undefined);
  });

  it('hears of an error', async () => {
    const { claim, lease } = waiting();
    claim.fail(new Error('the disk'));
    await assert.rejects(lease, /the disk/);
  });
});
