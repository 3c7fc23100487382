import { execFileSync } from 'node:child_process';

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { splitCommand as split } from '../../../src/connected/relay/ssh-command.ts';

const charactersOf = (text: string): string[] => Array.from(text);

/** The words into which a real shell splits the command. */
function shellWords(command: string): string[] {
  const output = execFileSync('sh', ['-fc', String.raw`printf '%s\000' ` + command], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] },
  });
  return output.split('\0').slice(0, -1);
}

describe('splitCommand', () => {
  it.each([
    ['ssh user@relay', ['ssh', 'user@relay']],
    [
      'gcloud compute ssh host --zone=europe-west1-b --',
      ['gcloud', 'compute', 'ssh', 'host', '--zone=europe-west1-b', '--'],
    ],
    [' \t ssh   -p\t22  relay\n', ['ssh', '-p', '22', 'relay']],
    [`ssh -i '/home/me/my keys/id' relay`, ['ssh', '-i', '/home/me/my keys/id', 'relay']],
    [
      `ssh -o "ProxyCommand nc -x 127.0.0.1:9 %h %p" relay`,
      ['ssh', '-o', 'ProxyCommand nc -x 127.0.0.1:9 %h %p', 'relay'],
    ],
    [`ssh '' "" a''b`, ['ssh', '', '', 'ab']],
    [String.raw`ssh a\ b \$HOME "\$x\n" '\$'`, ['ssh', 'a b', '$HOME', String.raw`$x\n`, String.raw`\$`]],
    ['ssh a\\\nb "c\\\nd"', ['ssh', 'ab', 'cd']],
    [`ssh '$(touch ran)' ";" '|&<>()*?['`, ['ssh', '$(touch ran)', ';', '|&<>()*?[']],
    ['ssh a#b relay', ['ssh', 'a#b', 'relay']],
    ['ssh -o User=me -oPort=22 relay', ['ssh', '-o', 'User=me', '-oPort=22', 'relay']],
    ['ssh -i ~/.ssh/id relay', ['ssh', '-i', '~/.ssh/id', 'relay']],
    ['ssh ключ-🙂 relay', ['ssh', 'ключ-🙂', 'relay']],
  ])('splits %j', (command, words) => {
    expect(split(command)).toEqual(words);
  });

  it.each(['$HOME', '"$HOME"', '`id`', '"`id`"', 'a;b', 'a|b', 'a&', '<a', '>a', '(a)', 'a*', 'a?', '[a]', '#a'])(
    'refuses %s, which a shell would evaluate',
    (word) => {
      expect(() => split(`ssh ${word}`)).toThrow(
        /^RELAY_SSH_CMD: contains .* at character \d+, which a shell would evaluate/,
      );
    },
  );

  it.each([
    [`ssh 'relay`, `RELAY_SSH_CMD: the ' at character 5 is not closed; add the closing '`],
    [`ssh "relay`, `RELAY_SSH_CMD: the " at character 5 is not closed; add the closing "`],
    ['ssh "relay\\', `RELAY_SSH_CMD: the " at character 5 is not closed; add the closing "`],
    ['ssh relay\\', 'RELAY_SSH_CMD: ends in a backslash'],
    ['ssh relay\nrm -r x', 'RELAY_SSH_CMD: contains a line break outside of quotes'],
    [
      'FOO=bar ssh relay',
      'RELAY_SSH_CMD: begins with an assignment (FOO=…), which only a shell makes; write "env FOO=… ssh …"',
    ],
    ['ssh a\0b', 'RELAY_SSH_CMD: expected text, got a NUL character'],
    ['   ', 'RELAY_SSH_CMD: expected a command such as "ssh user@relay", got nothing'],
  ])('refuses %j and gives the reason', (command, message) => {
    expect(() => split(command)).toThrow(message);
  });

  it('agrees with a real shell on all quoted text', () => {
    const text = fc.string({
      unit: fc.constantFrom(...charactersOf(`ab \t'"\\$\`;|&<>()*?[]#~=!{}\n-é🙂`)),
      maxLength: 12,
    });
    const unquoted = fc.stringMatching(/^[a-zA-Z0-9@%+:,./_-]{1,8}$/);
    const piece = fc.oneof(
      unquoted,
      text.map((characters) => `'${characters.replaceAll("'", '')}'`),
      text.map((characters) => `"${characters.replace(/[$`"\\]/g, String.raw`\$&`)}"`),
      // In double quotes, a backslash stays before most characters.
      fc.constantFrom(
        '"\\a"',
        '"\\ "',
        '"\\\\"',
        "\\'",
        '\\"',
        '\\\\',
        '\\$',
        '\\ ',
        '\\;',
        '\\*',
        '\\é',
        '\\\n',
        '"\\\n"',
      ),
    );
    const word = fc.array(piece, { minLength: 1, maxLength: 4 }).map((pieces) => pieces.join(''));
    const command = fc.array(word, { maxLength: 6 }).map((words) => ['ssh', ...words].join(' '));
    // The setting is trimmed, so blanks at its ends belong to no word.
    fc.assert(
      fc.property(command, (line) => {
        fc.pre(!/\\\n?$/.test(line.trim()) && line === line.trim());
        expect(split(line)).toEqual(shellWords(line));
      }),
      { numRuns: 300 },
    );
  });

  it("never returns words that differ from a real shell's", () => {
    const text = fc.string({ unit: fc.constantFrom(...charactersOf(`ab \t'"\\$\`;|&<>()*?[#=~-`)), maxLength: 16 });
    let comparisons = 0;
    fc.assert(
      fc.property(text, (line) => {
        const command = `x ${line}`.trim();
        // splitCommand leaves ~ to ssh on purpose.
        fc.pre(!command.includes('~'));
        let words: readonly string[];
        try {
          words = split(command);
        } catch {
          return;
        }
        comparisons += 1;
        expect(words).toEqual(shellWords(command));
      }),
      { numRuns: 2_000 },
    );
    expect(comparisons).toBeGreaterThan(100);
  });
});
