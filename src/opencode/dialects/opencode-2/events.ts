import { fieldsOf } from '../../../base/errors.ts';
import type { ServerEvent } from '../../events.ts';
import type { Question } from '../../schema.ts';
import { ABORTED, errorOf, partId, permissionOf, questionOf, sessionOf } from './messages.ts';
import {
  wireErrorSchema,
  wireFormSchema,
  wirePermissionSchema,
  wireQuestionSchema,
  wireSessionSchema,
} from './wire.ts';

type Data = Readonly<Record<string, unknown>>;

/** Types and properties of OpenCode 1's events. */
type Normal = readonly (readonly [string, Data])[];

/** Stands for a prompt that was delivered before the stream began; the store has its id. */
const UNSEEN = 'msg_unseen';

/** Sessions and messages that one reader remembers; more never run at once. */
const MAX_SESSIONS = 1_000;

/**
 * Reads OpenCode 2's events, one stream each, as OpenCode 1's. The preview has the same events with the prefixes `session.next.` and
 * `permission.v2.`. Unknown and malformed ones are left out: their content is in the store.
 */
export class EventReader {
  /** The current prompt of each session. */
  readonly #prompts = new Map<string, string>();
  /** Part ids of each unfinished message's texts, by their key in deltas. */
  readonly #texts = new Map<string, Map<unknown, string>>();

  read(value: unknown, chars: number): readonly ServerEvent[] {
    const { id, type, data, created } = fieldsOf(value);
    if (typeof type !== 'string') return [];
    const about = fieldsOf(data);
    const event = (name: string, properties: Data): ServerEvent => ({
      type: name,
      properties,
      chars,
      ...(typeof id === 'string' && { id }),
    });
    return this.#eventsOf(type.replace(/^session\.next\.|^(permission|question)\.v2\./, prefixOf), about, created).map(
      ([name, properties]) => event(name, properties),
    );
  }

  #eventsOf(type: string, data: Data, created: unknown): Normal {
    const { sessionID, assistantMessageID: messageID } = data;
    if (type === 'form.created') return asked('question.asked', formIn(data['form']));
    if (typeof sessionID !== 'string') return [];
    switch (type) {
      case 'session.created':
        return createdIn(data);
      case 'session.renamed':
        return [['session.updated', { sessionID, info: { id: sessionID, title: data['title'] } }]];
      case 'session.deleted':
        return [['session.deleted', { sessionID, info: { id: sessionID } }]];
      case 'permission.asked': {
        const found = wirePermissionSchema.safeParse(data).data;
        return asked('permission.asked', found && permissionOf(found));
      }
      case 'question.asked':
        return asked('question.asked', wireQuestionSchema.safeParse(data).data);
      case 'session.prompted':
      case 'session.inbox.delivered':
        return this.#taken(sessionID, data['messageID'] ?? data['inboxID']);
      case 'session.execution.started':
        return [['session.status', { sessionID, status: { type: 'busy' } }]];
      case 'session.execution.succeeded':
      case 'session.execution.failed':
        return [['session.idle', { sessionID }]];
      case 'session.execution.interrupted':
        // The service stops; its next start resumes the turn.
        if (data['reason'] === 'shutdown') return [['session.touched', { sessionID }]];
        return [['session.idle', { sessionID, outcome: 'interrupted' }]];
      case 'session.retry.scheduled':
        return [['session.status', { sessionID, status: retryIn(data) }]];
      case 'session.step.started':
        return this.#answer(sessionID, messageID, timeOf(data, created), {});
      case 'session.step.ended':
        return [
          ...this.#answer(sessionID, messageID, timeOf(data, created), data),
          // The preview has no end event; after a step that needs no further one, its session soon stops being active.
          ...(data['finish'] === 'tool-calls' ? [] : [['session.idle', { sessionID }] as const]),
        ];
      case 'session.step.failed': {
        const isAborted = errorIn(data)?.name === ABORTED.name;
        return [['session.idle', { sessionID, ...(isAborted && { outcome: 'interrupted' }) }]];
      }
      case 'session.tool.failed':
        return [['session.idle', { sessionID }]];
      case 'session.text.started':
        return this.#textStarted(sessionID, messageID, data);
      case 'session.text.delta':
        return this.#textDelta(sessionID, messageID, data);
      case 'session.text.ended':
        return this.#textEnded(sessionID, messageID, data, timeOf(data, created));
      default:
        return [['session.touched', { sessionID }]];
    }
  }

  #taken(sessionID: string, messageID: unknown): Normal {
    if (typeof messageID !== 'string') return [];
    if (this.#prompts.size >= MAX_SESSIONS) this.#prompts.clear();
    this.#prompts.set(sessionID, messageID);
    return [['prompt.taken', { sessionID, messageID }]];
  }

  #answer(sessionID: string, id: unknown, created: number, { finish }: Data): Normal {
    if (typeof id !== 'string') return [];
    // The end of a step has no start time; the store has both.
    if (finish !== undefined) return [['session.touched', { sessionID }]];
    const parentID = this.#prompts.get(sessionID) ?? UNSEEN;
    return [
      ['message.updated', { sessionID, info: { id, role: 'assistant', sessionID, parentID, time: { created } } }],
    ];
  }

  #textStarted(sessionID: string, messageID: unknown, data: Data): Normal {
    if (typeof messageID !== 'string') return [];
    const texts = this.#texts.get(messageID) ?? new Map<unknown, string>();
    if (!this.#texts.has(messageID)) {
      if (this.#texts.size >= MAX_SESSIONS) this.#texts.clear();
      this.#texts.set(messageID, texts);
    }
    const id = partId(messageID, texts.size);
    texts.set(textKey(data), id);
    return [['message.part.updated', { sessionID, part: { id, messageID, type: 'text', text: '' } }]];
  }

  /** A text whose start was missed is read from the store once it has ended. */
  #textDelta(sessionID: string, messageID: unknown, data: Data): Normal {
    const { delta } = data;
    const partID = this.#texts.get(String(messageID))?.get(textKey(data));
    if (partID === undefined) return [['session.touched', { sessionID }]];
    return [['message.part.delta', { sessionID, messageID, partID, field: 'text', delta }]];
  }

  #textEnded(sessionID: string, messageID: unknown, data: Data, end: number): Normal {
    const { text } = data;
    const id = this.#texts.get(String(messageID))?.get(textKey(data));
    if (id === undefined) return [['session.touched', { sessionID }]];
    return [['message.part.updated', { sessionID, part: { id, messageID, type: 'text', text, time: { end } } }]];
  }
}

function prefixOf(_: string, kind: string | undefined): string {
  return kind === undefined ? 'session.' : `${kind}.`;
}

/** `textID` on the preview. */
function textKey({ ordinal, textID }: Data): unknown {
  return ordinal ?? textID;
}

function timeOf({ timestamp }: Data, created: unknown): number {
  return typeof created === 'number' ? created : typeof timestamp === 'number' ? timestamp : 0;
}

function asked(type: string, request: object | undefined): Normal {
  return request === undefined ? [] : [[type, { ...request }]];
}

function formIn(form: unknown): Question | undefined {
  const found = wireFormSchema.safeParse(form).data;
  return found && questionOf(found);
}

/** The preview sends the session as `info`; 2.x sends its fields. */
function createdIn(data: Data): Normal {
  const info = fieldsOf(data['info']);
  const { directory = info['directory'] } = fieldsOf(data['location']);
  const time = { created: 0, updated: 0 };
  const parentID = data['parentID'] ?? info['parentID'];
  const found = wireSessionSchema.safeParse({ id: data['sessionID'], parentID, location: { directory }, time });
  return found.success ? [['session.created', { sessionID: found.data.id, info: sessionOf(found.data) }]] : [];
}

function retryIn(data: Data): Data {
  const { name = '', data: detail } = errorIn(data) ?? {};
  return { type: 'retry', attempt: data['attempt'], next: data['at'], message: detail?.message ?? name };
}

function errorIn({ error }: Data): ReturnType<typeof errorOf> | undefined {
  const found = wireErrorSchema.safeParse(error).data;
  return found && errorOf(found);
}
