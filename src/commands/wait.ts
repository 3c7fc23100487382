import type { TurnView } from '../operations/shapes.ts';
import { wait } from '../operations/send/wait.ts';
import { EXIT, type Exit, exitOf } from './terminal/exit-codes.ts';
import { notice } from './terminal/follow.ts';
import type { ShellCommand } from './terminal/shell.ts';

export const WAIT: ShellCommand = {
  arguments: {
    flags: { session: 'string', all: 'boolean', timeout: 'string', json: 'boolean' },
    positionals: true,
  },
  run: async (shell) => {
    const { flags, positionals } = shell;
    const isAll = flags.has('all');
    const input = {
      ...(positionals.length > 0 && { instances: positionals }),
      session_id: flags.get('session'),
      for: isAll ? 'all' : 'any',
    } as const;
    const call = shell.call();
    const { data } = await shell.recorded('wait', input, () => wait(shell.runtime(), input, call));
    const turns = data.turns ?? [];
    if (flags.has('json')) shell.printJson(data);
    else if (turns.length === 0) shell.print('Nothing runs on any instance.\n');
    else {
      for (const turn of turns) {
        shell.tell(notice(turn, 'wait'));
        if (turn.text !== undefined && turn.text !== '') shell.print(`${turn.text}\n`);
      }
    }
    return exitOfAll(turns, isAll);
  },
};

/** The most urgent outcome counts: waiting, then failed. Without --all the other instances may still run. */
function exitOfAll(turns: readonly TurnView[], isAll: boolean): Exit {
  const exits = turns.map(({ outcome }) => exitOf(outcome));
  const first = [EXIT.waiting, EXIT.failed].find((exit) => exits.includes(exit));
  if (first !== undefined) return first;
  const running = exits.filter((exit) => exit === EXIT.running).length;
  return running > 0 && (isAll || running === exits.length) ? EXIT.running : EXIT.done;
}
