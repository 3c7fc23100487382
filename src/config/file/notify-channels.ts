import * as z from 'zod';
import {
  CHANNEL_TYPES,
  type ChannelSettings,
  type ChannelTarget,
  type Hours,
  NOTIFY_EVENTS,
  type NotifySettings,
  TEXT_LEVELS,
} from '../notify.ts';
import { quote } from '../quote.ts';
import { argvOf, type ConfigContext, secretSchema } from './config-secret.ts';
import { checkUrl, urlSchema, withoutSecrets } from './instance-url.ts';
import { didYouMean } from './nearest.ts';
import { isOwnNetwork } from './own-network.ts';
import { entries, parseShape, part, pattern, text, uniqueName } from './shape.ts';
import { resolvePath } from './text-file.ts';

/** A person at the terminal sees a shorter turn end. */
const MIN_TURN_SECONDS = 30;
const REPEAT_AFTER_MINUTES = 10;
const STALLED_AFTER_MINUTES = 10;

const DAY_SECONDS = 86_400;
const DAY_MINUTES = 1_440;
const MAX_CHANNELS = 20;

/** The `notify` of the config file; undefined if absent or invalid. */
export function checkNotify(raw: unknown, where: string, context: ConfigContext): NotifySettings | undefined {
  if (raw === undefined) return undefined;
  const schema = part({
    channels: z.array(z.unknown(), { error: 'an array' }),
    minTurnSeconds: count('seconds', DAY_SECONDS).default(MIN_TURN_SECONDS),
    repeatAfterMinutes: count('minutes', DAY_MINUTES).default(REPEAT_AFTER_MINUTES),
    stalledAfterMinutes: count('minutes', DAY_MINUTES).default(STALLED_AFTER_MINUTES),
  });
  const given = parseShape(schema, raw, where, context.problems);
  if (given === undefined) return undefined;
  const names = new Set<string>();
  const channels = entries(given.channels, `${where}.channels`, context.problems, (entry, place) =>
    checkChannel(entry, place, names, context),
  );
  if (channels.length > MAX_CHANNELS)
    context.problems.push(`${where}.channels: expected at most ${MAX_CHANNELS}, got ${channels.length}`);
  return { ...given, channels };
}

function count(unit: string, max: number) {
  const error = `a whole number of ${unit} from 0 to ${max}`;
  return z.int({ error }).min(0, { error }).max(max, { error });
}

/** Keys of every channel. */
function rules(names: Set<string>) {
  return {
    type: z.unknown(),
    name: uniqueName(names).exactOptional(),
    text: z.enum(TEXT_LEVELS, { error: `one of ${TEXT_LEVELS.join(', ')}` }).exactOptional(),
    events: z
      .array(z.enum(NOTIFY_EVENTS, { error: `one of ${NOTIFY_EVENTS.join(', ')}` }), { error: 'an array' })
      .default([...NOTIFY_EVENTS]),
    instances: z.array(pattern, { error: 'an array of patterns' }).default([]),
    hours: hours.exactOptional(),
  };
}

function checkChannel(
  entry: unknown,
  where: string,
  names: Set<string>,
  context: ConfigContext,
): ChannelSettings | undefined {
  const type: unknown = entry instanceof Object ? Reflect.get(entry, 'type') : undefined;
  const parse = <T extends z.ZodRawShape>(own: T) =>
    parseShape(part({ ...rules(names), ...own }), entry, where, context.problems);
  const completed = (
    given: z.infer<z.ZodObject<ReturnType<typeof rules>>>,
    target: ChannelTarget,
    url?: string,
  ): ChannelSettings => {
    const { name = freeName(target.type, names), events, instances, hours: within } = given;
    names.add(name);
    // A third party gets no text unless the configuration says so.
    const { text = url === undefined || isOwnNetwork(url) ? 'full' : 'none' } = given;
    return { name, text, events, instances, ...(within && { hours: within }), ...target };
  };
  switch (type) {
    case 'ntfy': {
      const token = secretSchema(context).exactOptional();
      const given = parse({ url: urlSchema('use the key "token"'), topic, token });
      if (given === undefined) return undefined;
      const { url, isExposed } = given.url;
      if (given.token !== undefined && isExposed && !isOwnNetwork(url))
        context.warnings.push(`${where}.url: sends a token over plain http to another machine; use https`);
      return completed(given, { type, url, topic: given.topic, ...(given.token && { token: given.token }) }, url);
    }
    case 'webhook': {
      const given = parse({ url: webhookUrl, secret: secretSchema(context).exactOptional() });
      return (
        given && completed(given, { type, url: given.url, ...(given.secret && { secret: given.secret }) }, given.url)
      );
    }
    case 'command': {
      const given = parse({ command: commandSchema(context) });
      return given && completed(given, { type, argv: given.command });
    }
    case 'desktop': {
      const given = parse({});
      return given && completed(given, { type });
    }
    default: {
      if (!(entry instanceof Object)) return void parse({});
      const meant = typeof type === 'string' ? `${quote(type)}${didYouMean(type, CHANNEL_TYPES)}` : 'none of them';
      context.problems.push(`${where}.type: expected one of ${CHANNEL_TYPES.join(', ')}, got ${meant}`);
      return undefined;
    }
  }
}

// ntfy's own rule. Anyone who knows the topic can read it, so it is not shown.
const topic = text((value) =>
  /^[-_A-Za-z0-9]{1,64}$/.test(value) ? undefined : 'expected 1 to 64 letters, digits, - and _, got something else',
);

const webhookUrl = z.string({ error: 'a string' }).transform((url, issues) => {
  // Unlike the URL of an instance, it may have a query.
  const checked = checkUrl(url.split('?', 1)[0] ?? '', 'a webhook is signed, with the key "secret"');
  if (!('problem' in checked) && URL.canParse(url) && !url.includes('#')) return new URL(url).href;
  const problem = 'problem' in checked ? checked.problem : 'expected a URL without fragment';
  // The path of a webhook is often its secret.
  const [origin] = /^(?:[^/]*\/\/)?[^/]*/.exec(withoutSecrets(url)) ?? [''];
  issues.addIssue(`${problem}; got ${quote(origin)}`);
  return z.NEVER;
});

function commandSchema({ home, folder }: ConfigContext) {
  const words = z.array(z.string({ error: 'a string' }), { error: '[PROGRAM, ARGUMENT, …]' });
  return words.transform((written, issues) => {
    const [program, ...rest] = argvOf(written) ?? [];
    if (program === undefined) {
      issues.addIssue('expected a program and its arguments, as [PROGRAM, ARGUMENT, …]');
      return z.NEVER;
    }
    // A bare name is looked up on PATH.
    const path = program.includes('/') ? resolvePath(program, home, folder) : program;
    return [path, ...rest] satisfies [string, ...string[]];
  });
}

function freeName(type: string, names: ReadonlySet<string>): string {
  let name = type;
  for (let count = 2; names.has(name); count += 1) name = `${type}-${count}`;
  return name;
}

const hours = z.string({ error: 'a string' }).transform((written, issues): Hours => {
  const times = /^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$/.exec(written)?.slice(1).map(Number);
  const [fromHour = 0, fromMinute = 0, toHour = 0, toMinute = 0] = times ?? [];
  const range = { from: fromHour * 60 + fromMinute, to: toHour * 60 + toMinute };
  if (times !== undefined && range.from !== range.to) return range;
  issues.addIssue(`expected two different times as in 08:00-22:00, got ${quote(written)}`);
  return z.NEVER;
});
