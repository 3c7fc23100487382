import * as z from 'zod';
import {
  CHANNEL_TYPES,
  type ChannelRules,
  type ChannelSettings,
  type ChannelTarget,
  type Hours,
  NOTIFY_EVENTS,
  type NotifySettings,
  TEXT_LEVELS,
} from '../notify.ts';
import { hasUnsafeCharacters, quote } from '../quote.ts';
import { checkTexts, entries } from './config-lists.ts';
import { checkSecret, type ConfigContext, configSecretSchema } from './config-secret.ts';
import { checkInstanceUrl, withoutSecrets } from './instance-url.ts';
import { didYouMean } from './nearest.ts';
import { isOwnNetwork } from './own-network.ts';
import { parseShape } from './shape.ts';
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
  const schema = z.strictObject(
    {
      channels: z.array(z.unknown(), { error: 'an array' }),
      minTurnSeconds: count('seconds', DAY_SECONDS),
      repeatAfterMinutes: count('minutes', DAY_MINUTES),
      stalledAfterMinutes: count('minutes', DAY_MINUTES),
    },
    { error: 'an object' },
  );
  const given = parseShape(schema, raw, where, context.problems);
  if (given === undefined) return undefined;
  const names = new Set<string>();
  const channels = entries(given.channels, `${where}.channels`, context, (entry, place) =>
    checkChannel(entry, place, names, context),
  );
  if (channels.length > MAX_CHANNELS)
    context.problems.push(`${where}.channels: expected at most ${MAX_CHANNELS}, got ${channels.length}`);
  return {
    channels,
    minTurnSeconds: given.minTurnSeconds ?? MIN_TURN_SECONDS,
    repeatAfterMinutes: given.repeatAfterMinutes ?? REPEAT_AFTER_MINUTES,
    stalledAfterMinutes: given.stalledAfterMinutes ?? STALLED_AFTER_MINUTES,
  };
}

function count(unit: string, max: number) {
  const error = `a whole number of ${unit} from 0 to ${max}`;
  return z.int({ error }).min(0, { error }).max(max, { error }).exactOptional();
}

const text = z.string({ error: 'a string' });

/** Keys of every channel. */
const RULES = {
  name: text.exactOptional(),
  text: z.enum(TEXT_LEVELS, { error: `one of ${TEXT_LEVELS.join(', ')}` }).exactOptional(),
  events: z
    .array(z.enum(NOTIFY_EVENTS, { error: `one of ${NOTIFY_EVENTS.join(', ')}` }), { error: 'an array' })
    .exactOptional(),
  instances: z.array(text, { error: 'an array of patterns' }).exactOptional(),
  hours: text.exactOptional(),
};

type GivenRules = z.infer<z.ZodObject<typeof RULES>>;

function checkChannel(
  entry: unknown,
  where: string,
  names: Set<string>,
  context: ConfigContext,
): ChannelSettings | undefined {
  const checked = checkTarget(entry, where, context);
  if (checked === undefined) return undefined;
  const [given, target] = checked;
  return { ...checkRules(given, target, where, { names, context }), ...target };
}

/** The keys specific to the entry's type, checked. */
function checkTarget(
  entry: unknown,
  where: string,
  context: ConfigContext,
): readonly [GivenRules, ChannelTarget] | undefined {
  const { problems } = context;
  const type: unknown = entry instanceof Object ? Reflect.get(entry, 'type') : undefined;
  const shape = <T extends z.ZodRawShape>(own: T) =>
    parseShape(z.strictObject({ type: z.unknown(), ...RULES, ...own }, { error: 'an object' }), entry, where, problems);
  switch (type) {
    case 'ntfy': {
      const given = shape({ url: text, topic: text, token: configSecretSchema().exactOptional() });
      const target = given && checkNtfy(given, where, context);
      return target && [given, target];
    }
    case 'webhook': {
      const given = shape({ url: text, secret: configSecretSchema().exactOptional() });
      const target = given && checkWebhook(given, where, context);
      return target && [given, target];
    }
    case 'command': {
      const given = shape({ command: z.array(text, { error: '[PROGRAM, ARGUMENT, …]' }) });
      const target = given && checkCommand(given.command, `${where}.command`, context);
      return target && [given, target];
    }
    case 'desktop': {
      const given = shape({});
      return given && [given, { type }];
    }
    default: {
      if (!(entry instanceof Object)) parseShape(z.strictObject({}, { error: 'an object' }), entry, where, problems);
      else {
        const meant = typeof type === 'string' ? `${quote(type)}${didYouMean(type, CHANNEL_TYPES)}` : 'none of them';
        problems.push(`${where}.type: expected one of ${CHANNEL_TYPES.join(', ')}, got ${meant}`);
      }
      return undefined;
    }
  }
}

type Given<T extends ChannelTarget['type']> = {
  readonly [Key in Exclude<keyof Extract<ChannelTarget, { type: T }>, 'type' | 'token' | 'secret'>]: string;
} & { readonly token?: Secret; readonly secret?: Secret };
type Secret = Parameters<typeof checkSecret>[0];

function checkNtfy(
  { url, topic, token }: Given<'ntfy'>,
  where: string,
  context: ConfigContext,
): ChannelTarget | undefined {
  const { problems, warnings } = context;
  const checked = checkInstanceUrl(url, 'use the key "token"');
  if ('problem' in checked) problems.push(`${where}.url: ${checked.problem}; got ${quote(withoutSecrets(url))}`);
  // ntfy's own rule. Anyone who knows the topic can read it, so it is not shown.
  if (!/^[-_A-Za-z0-9]{1,64}$/.test(topic))
    problems.push(`${where}.topic: expected 1 to 64 letters, digits, - and _, got something else`);
  const ref = token === undefined ? undefined : checkSecret(token, `${where}.token`, context);
  if ('problem' in checked) return undefined;
  if (ref !== undefined && checked.isExposed && !isOwnNetwork(checked.url))
    warnings.push(`${where}.url: sends a token over plain http to another machine; use https`);
  return { type: 'ntfy', url: checked.url, topic, ...(ref && { token: ref }) };
}

function checkWebhook(
  { url, secret }: Given<'webhook'>,
  where: string,
  context: ConfigContext,
): ChannelTarget | undefined {
  // Unlike the URL of an instance, it may have a query.
  const checked = checkInstanceUrl(url.split('?', 1)[0] ?? '', 'a webhook is signed, with the key "secret"');
  const ref = secret === undefined ? undefined : checkSecret(secret, `${where}.secret`, context);
  if ('problem' in checked || !URL.canParse(url) || url.includes('#')) {
    const problem = 'problem' in checked ? checked.problem : 'expected a URL without fragment';
    // The path of a webhook is often its secret.
    const [origin] = /^(?:[^/]*\/\/)?[^/]*/.exec(withoutSecrets(url)) ?? [''];
    context.problems.push(`${where}.url: ${problem}; got ${quote(origin)}`);
    return undefined;
  }
  return { type: 'webhook', url: new URL(url).href, ...(ref && { secret: ref }) };
}

function checkCommand(
  [program, ...rest]: readonly string[],
  where: string,
  { problems, home, folder }: ConfigContext,
): ChannelTarget | undefined {
  if (program === undefined || program === '' || [program, ...rest].some((argument) => argument.includes('\0'))) {
    problems.push(`${where}: expected a program and its arguments, as [PROGRAM, ARGUMENT, …]`);
    return undefined;
  }
  // A bare name is looked up on PATH.
  const isPath = program.includes('/');
  return { type: 'command', argv: [isPath ? resolvePath(program, home, folder) : program, ...rest] };
}

function checkRules(
  given: GivenRules,
  target: ChannelTarget,
  where: string,
  { names, context }: { readonly names: Set<string>; readonly context: ConfigContext },
): ChannelRules {
  const { problems } = context;
  const name = given.name ?? freeName(target.type, names);
  if (name === '' || name.length > 64 || hasUnsafeCharacters(name))
    problems.push(`${where}.name: expected 1 to 64 characters, none of them control or invisible, got ${quote(name)}`);
  else if (names.has(name)) problems.push(`${where}.name: expected a unique name, got ${quote(name)} a second time`);
  names.add(name);
  const { instances = [], events = NOTIFY_EVENTS } = given;
  checkTexts(Object.fromEntries(instances.map((pattern, index) => [`instances[${index}]`, pattern])), where, context);
  const hours = given.hours === undefined ? undefined : checkHours(given.hours, `${where}.hours`, problems);
  return { name, text: given.text ?? defaultText(target), events, instances, ...(hours && { hours }) };
}

function freeName(type: string, names: ReadonlySet<string>): string {
  let name = type;
  for (let count = 2; names.has(name); count += 1) name = `${type}-${count}`;
  return name;
}

/** A channel of a third party gets no text unless the configuration says so. */
function defaultText(target: ChannelTarget): ChannelRules['text'] {
  return 'url' in target && !isOwnNetwork(target.url) ? 'none' : 'full';
}

function checkHours(written: string, where: string, problems: string[]): Hours | undefined {
  const times = /^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$/.exec(written)?.slice(1).map(Number);
  const [fromHour = 0, fromMinute = 0, toHour = 0, toMinute = 0] = times ?? [];
  const hours = { from: fromHour * 60 + fromMinute, to: toHour * 60 + toMinute };
  if (times !== undefined && hours.from !== hours.to) return hours;
  problems.push(`${where}: expected two different times as in 08:00-22:00, got ${quote(written)}`);
  return undefined;
}
