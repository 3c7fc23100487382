import { randomBytes } from 'node:crypto';

/**
 * opencode's ascending ids: a prefix, 12 hex digits of (ms · 4096 + counter) modulo 2^48, and
 * 14 base62 characters. It orders messages by them, so an id of ours must follow the
 * newest one of its session and come from no clock but the server's: on 1.18.10 a message
 * ahead of the server's clock was answered in a loop and one behind it never.
 */
const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const MODULUS = 1n << 48n;

const ASCENDING = /^[a-z]+_([0-9a-f]{12})/;

/** Whether it is one of opencode's own form, which has a place in their order. */
export function isAscending(id: string): boolean {
  return ASCENDING.test(id);
}

/** The id that directly follows `newest` in order and is unique for ever by its random tail. */
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

/** A session id that no session has; used to make a process emit an event of ours. */
export function randomSessionId(): string {
  return compose('ses', BigInt(`0x${randomBytes(6).toString('hex')}`));
}

function compose(prefix: string, stamp: bigint): string {
  const hex = (stamp % MODULUS).toString(16).padStart(12, '0');
  let tail = '';
  // 248 = 4 · 62: bytes above it would make some characters likelier.
  while (tail.length < 14) {
    for (const byte of randomBytes(20)) {
      if (byte < 248 && tail.length < 14) tail += BASE62[byte % 62];
    }
  }
  return `${prefix}_${hex}${tail}`;
}
