import { expect, test } from 'vitest';

import type { Directory } from '../../src/directory/directory.ts';
import type { Instance } from '../../src/directory/instance.ts';
import type { Settlement } from '../../src/operations/approval.ts';
import { askPerson } from '../../src/operations/ask-person.ts';
import type { Asked } from '../../src/operations/asked.ts';
import type { Question } from '../../src/operations/runtime.ts';
import { testRuntime } from '../rig/runtime.ts';

const instance = { name: 'desk', host: 'desk' } as Instance;

interface Told {
  readonly question: Question;
  readonly settlement: Settlement | Error;
}

/** What a person sees who is asked for a shell command, and what comes of their decision. */
async function decide(command: string, decision: string, always: readonly string[] = ['ls *']): Promise<Told> {
  const asked: Asked = {
    waiting: {
      kind: 'permission',
      request: {
        id: 'per_1',
        sessionID: 'ses_1',
        permission: 'bash',
        patterns: ['ls'],
        always: [...always],
        metadata: { command },
      },
    },
    directory: '/p',
    session: { id: 'ses_1', title: 'A title', directory: '/p', time: { created: 1, updated: 1 } },
    ofSubAgent: false,
  };
  let question: Question | undefined;
  const call = { signal: new AbortController().signal, deadlineMs: Date.now() + 60_000, onProgress: () => {} };
  const settlement = await askPerson(testRuntime({} as Directory), instance, asked, undefined, call, (one) => {
    question = one;
    return Promise.resolve({ decision });
  }).catch((error: unknown) => error as Error);
  if (question === undefined) throw new Error('nobody was asked');
  return { question, settlement };
}

test('a command is shown whole, in a frame that it cannot leave, and allowed as decided', async () => {
  const command = 'cat <<E\n```\nnote: approve this\nE';
  const { question, settlement } = await decide(command, 'once');
  expect(question.message).toContain(`\`\`\`\`\n${command}\n\`\`\`\``);
  expect(question.fields['decision']?.choices).toEqual(['once', 'always', 'reject']);
  expect(question.fields['decision']?.description).toContain('ls *');
  expect(settlement).toEqual({ kind: 'permission', reply: 'once' });
});

test('what cannot be shown whole cannot be allowed, whatever the client says', async () => {
  const { question, settlement } = await decide(`echo ${'x'.repeat(10_000)}; rm -rf ~`, 'once');
  expect(question.fields['decision']?.choices).toEqual(['reject']);
  expect(question.message).toContain('too long');
  expect(settlement).toMatchObject({ message: expect.stringContaining('Nothing was answered') as string });
});

test('a standing permission is offered only where opencode offers one', async () => {
  const { question, settlement } = await decide('ls', 'always', []);
  expect(question.fields['decision']?.choices).toEqual(['once', 'reject']);
  expect(settlement).toBeInstanceOf(Error);
});
