import { userInfo } from 'node:os';
import { openDashboard } from '../attach/dashboard.ts';
import { isOwnPeer } from '../attach/own-peer.ts';
import { systemClock } from '../base/clock.ts';
import { OperationError } from '../operations/answer.ts';
import { EXIT } from './terminal/exit-codes.ts';
import { showInBrowser } from './terminal/show-in-browser.ts';
import { type ShellCommand, takeNames } from './terminal/shell.ts';
import { refuseWhileRevoked, REVOKED, untilRevoked } from './terminal/until-revoked.ts';

export const DASHBOARD: ShellCommand = {
  arguments: { flags: { print: 'boolean' }, positionals: true },
  run: async (shell) => {
    takeNames('dashboard', shell, { needed: [] });
    refuseWhileRevoked(shell);
    const { settings, logger, tell } = shell;
    const dashboard = await openDashboard({
      runtime: shell.runtime(),
      caller: { name: `${userInfo().username} on this machine`, role: settings.readOnly ? 'read' : 'drive' },
      clock: systemClock,
      logger,
      record: (entry) => shell.record(entry),
      isOwnPeer,
    });
    try {
      const isOver = untilRevoked(shell);
      await showInBrowser(shell, dashboard.url);
      tell('The page is in the browser that opens this first, until Ctrl-C here.\n');
      if ((await isOver) === 'revoked') throw new OperationError(REVOKED);
    } finally {
      dashboard.close();
    }
    return EXIT.done;
  },
};
