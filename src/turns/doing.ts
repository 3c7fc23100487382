import { quoteShort, singleLine } from '../base/plain-text.ts';
import type { ServerEvent } from '../opencode/events.ts';
import { partSchema } from '../opencode/schema.ts';
import { inMarks } from '../opencode/waiting.ts';

const MAX_CHARS = 120;

/** The agent's activity that an event shows (`runs bash «npm test»`, `writes`), if any. */
export function doingIn({ type, properties }: ServerEvent): string | undefined {
  const part = type === 'message.part.updated' ? partSchema.safeParse(properties['part']).data : undefined;
  if (part?.type === 'reasoning') return 'thinks';
  if (part?.type === 'text') return 'writes';
  if (part?.type !== 'tool' || part.state?.status === 'completed' || part.state?.status === 'error') return undefined;
  const command = part.state?.input?.['command'];
  const title = part.state?.title || (typeof command === 'string' ? command : '');
  const name = quoteShort(part.tool ?? 'a tool', MAX_CHARS);
  return `runs ${name}${title === '' ? '' : ` ${inMarks(singleLine(title, MAX_CHARS))}`}`;
}
