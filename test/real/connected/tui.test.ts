import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename } from 'node:path';

import { afterEach, expect, test } from 'vitest';

import { defaultName } from '../../../src/identity/default-name.ts';
import { ask, openTerminalStage, WRAPPER } from '../../connected/terminal-stage.ts';
import { endAll } from '../../connected/wrapper-stage.ts';
import { isMissing, PINNED_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { needTmux } from '../../rig/programs/tmux.ts';
import { until } from '../../rig/wait.ts';

const READY = /Ask anything/;

afterEach(endAll);

test.skipIf(isMissing(PINNED_OPENCODE))(
  'opencode draws, takes keys, resizes, stops on Ctrl-Z and ends, and the terminal is restored',
  async (context) => {
    needTmux(context);
    const { terminal, sandbox, registered, nothingLeft } = await openTerminalStage();
    const before = await ask(terminal, 'stty -a');
    // Started as an alias of opencode would: in another directory, with the directory to work in as the argument.
    await terminal.type(`clear; cd /; ${WRAPPER} ${sandbox.directory}; echo "code=$?"`, 'Enter');
    await terminal.shows(READY);
    const file = await registered();
    expect(basename(file)).toBe(`${defaultName(hostname(), sandbox.directory)}.json`);
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({ cwd: sandbox.directory });
    await terminal.type('typed "by hand"');
    await terminal.shows(/typed "by hand"/);
    await terminal.resize(70, 24);
    // The last line has the directory, and the version at its right edge.
    await until('the last line to be 70 wide', async () =>
      (await terminal.screen())
        .split('\n')
        .some((line) => /\d+\.\d+\.\d+\s*$/.test(line) && line.trimEnd().length <= 70),
    );
    await terminal.resize(100, 30);
    await terminal.type('', 'C-z');
    await terminal.shows(/Stopped/);
    await terminal.type('clear; fg; echo "code=$?"', 'Enter');
    await terminal.shows(/typed "by hand"/);
    // The first Ctrl-C clears the line, the second one ends opencode.
    await terminal.type('', 'C-c');
    await terminal.shows(READY);
    await terminal.type('', 'C-c');
    await terminal.shows(/^code=0/m);
    expect(await ask(terminal, 'stty -a')).toBe(before);
    await nothingLeft();
  },
);
