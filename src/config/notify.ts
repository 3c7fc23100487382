import type { SecretRef } from './file/secret-ref.ts';

/** The events of a channel's rules. */
export const NOTIFY_EVENTS = ['permission', 'question', 'unanswered', 'done', 'failed', 'stalled'] as const;
export type NotifyEvent = (typeof NOTIFY_EVENTS)[number];

/**
 * How much a channel discloses.
 * - `none`: only the kind of event
 * - `title`: also machine, directory, session title and link
 * - `full`: also the command, the question with its options, or the reason
 */
export const TEXT_LEVELS = ['none', 'title', 'full'] as const;
export type TextLevel = (typeof TEXT_LEVELS)[number];

export const CHANNEL_TYPES = ['ntfy', 'webhook', 'command', 'desktop'] as const;

/** A part of each day in this machine's local time, in minutes since midnight. It spans midnight if `to` is not after `from`. */
export interface Hours {
  readonly from: number;
  readonly to: number;
}

export interface ChannelRules {
  /** Unique among the channels. */
  readonly name: string;
  readonly text: TextLevel;
  readonly events: readonly NotifyEvent[];
  /** Patterns of instance names; empty: every instance. */
  readonly instances: readonly string[];
  readonly hours?: Hours;
}

export type ChannelTarget =
  | {
      readonly type: 'ntfy';
      /** Without a trailing slash. */
      readonly url: string;
      readonly topic: string;
      readonly token?: SecretRef;
    }
  | { readonly type: 'webhook'; readonly url: string; readonly secret?: SecretRef }
  | { readonly type: 'command'; readonly argv: readonly [string, ...string[]] }
  | { readonly type: 'desktop' };

export type ChannelSettings = ChannelRules & ChannelTarget;

export interface NotifySettings {
  readonly channels: readonly ChannelSettings[];
  /** The end of a shorter turn causes no notification. */
  readonly minTurnSeconds: number;
  /** A request that still waits after this time is notified once more; 0: never. */
  readonly repeatAfterMinutes: number;
  /** A turn that retries or sends no event for this long is stalled; 0: never. */
  readonly stalledAfterMinutes: number;
}
