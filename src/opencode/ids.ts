import { randomBytes } from 'node:crypto';

/**
 * opencode's ascending ids: a prefix, 12 hex digits of (ms · 4096 + counter) modulo 2^48, and 14 base62 characters. opencode
 * orders messages by them, so an id of ours must follow the newest one of its session, by the server's clock: 1.18.10 answered
 * a message ahead of its clock in a loop, and one behind it never.
 */
const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const MODULUS = 1n << 48n;

const ASCENDING = /^[a-z]+_([0-9a-f]{12})/;

export function isAscending(id: string): boolean {
  return ASCENDING.test(id);
}

/** The id that follows `newest` in order; unique by its random tail. */
export function successor(newest: string, prefix: 'msg' | 'prt'): string {
  const digits = ASCENDING.exec(newest)?.[1];
  if (digits === undefined)
    throw new Error(`Expected an opencode id with 12 hex digits, got ${JSON.stringify(newest)}`);
  return compose(prefix, BigInt(`0x${digits}`) + 1n);
}

/** The first id of an empty session. `createdMs` is the session's own `time.created`: the server's clock. */
export function firstId(createdMs: number, prefix: 'msg' | 'prt'): string {
  return compose(prefix, BigInt(Math.trunc(createdMs)) * 4096n + 1n);
}

/** An id of no session. */
export function randomSessionId(): string {
  return compose('ses', BigInt(`0x${randomBytes(6).toString('hex')}`));
}

function compose(prefix: string, stamp: bigint): string {
  const hex = (stamp % MODULUS).toString(16).padStart(12, '0');
  let tail = '';
  // 248 = 4 · 62: larger bytes would make some characters likelier.
  while (tail.length < 14) {
    for (const byte of randomBytes(20)) {
      if (byte < 248 && tail.length < 14) tail += BASE62[byte % 62];
    }
  }
  return `${prefix}_${hex}${tail}`;
}
