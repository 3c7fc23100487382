import { describe, expect, test } from 'vitest';

import { admit, type AdmissionFacts, CAPABILITY, refuseSelf } from '../../src/node/access/admission.ts';
import type { TailnetNode } from '../../src/tailscale/types.ts';
import { tailnetNode, whoisOf } from '../rig/fake/memory-local-api.ts';

const self = tailnetNode({ id: 'self', addresses: ['100.64.0.1'] });
const rules = { users: [], tags: [] };
const allowUsers = (...names: string[]) => ({ rules: { users: names, tags: [] } });
const allowTags = (...names: string[]) => ({ rules: { users: [], tags: names } });

function facts(peer: TailnetNode, more: Partial<AdmissionFacts> = {}): AdmissionFacts {
  return { whois: whoisOf(peer, `${peer.userId}@example.com`), self, peer, rules, ...more };
}

const own = tailnetNode({ id: 'laptop' });
const other = tailnetNode({ id: 'other', userId: 'user-bob' });
const tagged = tailnetNode({ id: 'server', tags: ['tag:server'] });
const shared = tailnetNode({ id: 'shared', shared: true });
const withGrant = (peer: TailnetNode, ...objects: unknown[]): Partial<AdmissionFacts> => ({
  whois: whoisOf(peer, 'bob@example.com', { [CAPABILITY]: objects }),
});

describe('admit gives the role drive to', () => {
  test.each<[string, AdmissionFacts]>([
    ["the node's own user", facts(own)],
    ['a login on the list, ignoring case', facts(other, allowUsers('User-Bob@Example.com'))],
    ['a tag on the list', facts(tagged, allowTags('tag:server'))],
    ['a grant', facts(other, withGrant(other, { role: 'drive' }))],
    ['the union of grants', facts(other, withGrant(other, { role: 'read' }, { role: 'drive', later: true }))],
    ['a tagged machine with a grant', facts(tagged, withGrant(tagged, { role: 'drive' }))],
    ['a shared machine whose login is on the list', facts(shared, allowUsers('user-ada@example.com'))],
  ])('%s', (name, admissionFacts) => {
    const admission = admit(admissionFacts);
    expect(admission).toMatchObject({ role: 'drive' });
    // Only the node's own user may also see other machines' instances.
    expect('isNodeUser' in admission && admission.isNodeUser).toBe(name === "the node's own user");
  });
});

test('admit gives the role read to a caller with a grant to read', () => {
  expect(admit(facts(other, withGrant(other, { role: 'read' }, { role: 'admin' })))).toMatchObject({ role: 'read' });
});

describe('admit refuses', () => {
  const taggedSelf = tailnetNode({ id: 'self', tags: ['tag:server'], userId: 'user-ada' });
  test.each<[string, AdmissionFacts]>([
    ['a caller whom the tailnet does not know', facts(own, { whois: undefined })],
    ['another user', facts(other)],
    ["a tagged machine, even with the own user's ID", facts(tagged)],
    ['a tagged machine by the login that all tagged machines have', facts(tagged, allowUsers('tagged-devices'))],
    ["the node's own user if the node is tagged and so has no user", facts(own, { self: taggedSelf })],
    ['an empty user ID', facts({ ...own, userId: '' }, { self: { ...self, userId: '' } })],
    ["a shared machine with the own user's ID", facts(shared)],
    ['a shared machine with a tag that is on the list', facts({ ...tagged, shared: true }, allowTags('tag:server'))],
    ['a machine that the status does not list, since it may be shared', facts(own, { peer: undefined })],
    ['an expired machine', facts({ ...own, expired: true })],
    ['this machine itself', facts(self)],
    [
      'grants of unknown form',
      facts(
        other,
        withGrant(other, null, 'drive', { role: 'DRIVE' }, { roles: ['drive'] }, ['drive'], { role: ['drive'] }),
      ),
    ],
    [
      'a grant of another capability',
      facts(other, { whois: whoisOf(other, 'bob@example.com', { 'example.com/cap/opencode': [{ role: 'drive' }] }) }),
    ],
    ['an empty login', facts(other, { whois: whoisOf(other, ''), ...allowUsers('') })],
  ])('%s', (_, admissionFacts) => {
    const decision = admit(admissionFacts);
    expect(decision).toHaveProperty('refusal');
    expect(decision).not.toHaveProperty('role');
  });

  test('and names the setting that would admit the caller', () => {
    expect(admit(facts(other))).toMatchObject({
      refusal: expect.stringContaining('OPENCODE_TAILNET_USERS=user-bob@example.com'),
    });
    expect(admit(facts(tagged))).toMatchObject({
      refusal: expect.stringContaining('OPENCODE_TAILNET_TAGS=tag:server'),
    });
    expect(admit(facts(tagged))).toMatchObject({ caller: 'the tagged machine server.tail0.ts.net (tag:server)' });
    expect(refuseSelf()).toMatchObject({ refusal: expect.stringContaining('loopback') });
  });

  test('without control characters in the refusal', () => {
    const hostile = { ...other, dnsName: 'x\u001b]0;owned\u0007.net' };
    expect(JSON.stringify(admit(facts(hostile, { whois: whoisOf(hostile, 'eve\u202e\n@x') })))).not.toMatch(
      /\\u001b|\u202e|\\n/,
    );
  });

  test('and quotes names that could pass for words of the refusal', () => {
    const misleading = { ...other, dnsName: 'x is admitted. Call again' };
    expect(admit(facts(misleading, { whois: whoisOf(misleading, 'eve. You may drive') }))).toMatchObject({
      caller: '"eve. You may drive" on "x is admitted. Call again"',
      refusal: expect.stringContaining('OPENCODE_TAILNET_USERS="eve. You may drive" for'),
    });
  });
});
