import type { SecretRef } from './file/secret-ref.ts';

/** What a person may be notified of, as the rules of a channel name it. */
export const NOTIFY_EVENTS = ['permission', 'question', 'unanswered', 'done', 'failed', 'stalled'] as const;
export type NotifyEvent = (typeof NOTIFY_EVENTS)[number];

/**
 * How much of a fact a channel says.
 * - `none`: only what kind of thing happened
 * - `title`: machine, directory, session title and link too
 * - `full`: the command, the question with its options, or the reason too
 */
export const TEXT_LEVELS = ['none', 'title', 'full'] as const;
export type TextLevel = (typeof TEXT_LEVELS)[number];

export const CHANNEL_TYPES = ['ntfy', 'webhook', 'command', 'desktop'] as const;

/** A part of each day by this machine's time, in minutes since midnight; it goes over midnight where `to` is not after `from`. */
export interface Hours {
  readonly from: number;
  readonly to: number;
}

export interface ChannelRules {
  /** Unique among the channels. */
  readonly name: string;
  readonly text: TextLevel;
  readonly events: readonly NotifyEvent[];
  /** Patterns, one of which the instance's name must fit; every instance where there is none. */
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
  /** A turn that ends sooner is not notified. */
  readonly minTurnSeconds: number;
  /** How long a request waits until it is notified once more; 0: never. */
  readonly repeatAfterMinutes: number;
  /** How long a turn retries until it counts as stalled; 0: never. */
  readonly stalledAfterMinutes: number;
}
