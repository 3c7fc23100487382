import { messageIn } from '../../model/advice.ts';
import type { Session } from '../../opencode/schema.ts';
import type { FollowRequest } from '../../turns/follower.ts';
import { OperationError } from '../answer.ts';
import { type Call, type Connected, limitOf, type Runtime } from '../runtime.ts';
import { reportUndone } from '../send/undone.ts';
import { askWhileItWaits, fateNow } from './ask-while-it-waits.ts';
import { approverFor, type Asked } from './asked.ts';
import { describeSettled, settle } from './settle.ts';

export interface AskingInTurn {
  readonly onWaiting: FollowRequest['onWaiting'];
  readonly settled: readonly string[];
}

/** Asks the person about each request of a followed turn that is theirs to settle, if the client can ask them. */
export function askInTurn(runtime: Runtime, connected: Connected, session: Session, call: Call): AskingInTurn {
  const { askPerson } = call;
  const settled: string[] = [];
  if (askPerson === undefined) return { onWaiting: undefined, settled };
  const ask = async (asked: Asked): Promise<void> => {
    // Several turns may ask at the same time.
    const release = call.asksAtOnce === true ? () => {} : await runtime.lock.acquire('the person', limitOf(call));
    try {
      if ((await fateNow(connected, asked)) !== undefined) return;
      const settlement = await askWhileItWaits(runtime, connected, asked, undefined, { ...call, askPerson });
      if (settlement === 'aborted') return;
      const fate =
        settlement === 'elsewhere' ? 'settled' : await settle(runtime, connected, asked, settlement, call.signal);
      if (fate !== 'gone') settled.push(describeSettled(settlement, asked, fate === 'settled'));
    } finally {
      release();
    }
  };
  return {
    settled,
    onWaiting: async (outcome) => {
      const approver = approverFor(runtime, connected.instance, { ...outcome, directory: session.directory });
      if (approver !== 'ask' && approver !== 'human') return outcome;
      try {
        const asked = { ...outcome, directory: session.directory, session };
        await reportUndone(
          connected.instance.name,
          'nothing was answered',
          () => ask(asked),
          ({ respond }) => `Settle it with ${respond}, or in that opencode.`,
        );
        return undefined;
      } catch (error) {
        // The call has ended: nobody reads the reason.
        if (call.signal.aborted) return outcome;
        const message = messageIn(runtime.words, error);
        const reason = error instanceof OperationError ? message : `${message}; see ${runtime.words.status}`;
        return { ...outcome, reason };
      }
    },
  };
}
