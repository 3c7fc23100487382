import { settingsHelp } from '../../config/help.ts';
import { initHelp } from '../../setup/help.ts';

/** One screen: 24 lines of 80 columns. */
const HELP = `opencode-mcp finds every OpenCode instance you run and drives them.

In a shell (NAME may be a part of a name that only one has):
  list                    what each instance does; --watch goes on; or ls
  send NAME MESSAGE…      send a message, show the answer as it comes
  read NAME [SESSION]     what was said
  wait [NAME…]            until the first is idle, needs something or fails
  respond NAME            settle what it asks for: a permission, a question
  abort NAME [SESSION]    stop what runs
  sessions NAME           its sessions
  attach NAME [SESSION]   opencode's own terminal on it; open: its web page
  dashboard               all of them in the browser, to see and to drive
Set up:
  init                    tell the MCP clients on this machine about it
  doctor [NAME]           why an instance is missing, and what to type
  node                    serve this user's instances to the own tailnet
  watch, notify --test    notifications without node; try every channel
  completion SHELL        what makes Tab complete names: bash, zsh or fish
Without a command, on pipes, it is the MCP server: clients start it so.
help COMMAND has options and examples, help settings every setting; --version.
Exit codes: 0 done, 1 failed, aborted or not found, 2 wrong usage, 3 it waits
for somebody, 4 nothing was sent (busy, not reached), 124 it still runs.
`;

/** How a command is written, as its help has it. */
export interface CommandUsage {
  /** `send NAME MESSAGE…` */
  readonly usage: string;
  /** `--reply once|reject`, `--message ID [--offset N]` */
  readonly options: readonly string[];
}

interface CommandHelp {
  readonly usage: string;
  readonly text: string;
  readonly options?: readonly (readonly [string, string])[];
  readonly examples: readonly string[];
}

const TIMEOUT = [
  '--timeout SECONDS',
  'follow it no longer than that (default: 7 days); then the exit code is 124',
] as const;
const JSON_OPTION = ['--json', 'the result as JSON on standard output, when it is there'] as const;

const COMMANDS: Readonly<Record<string, CommandHelp>> = {
  list: {
    usage: 'list [PART]',
    text: 'Every instance, or those with PART in their names: what it does or waits for, where it runs. Columns that\ndo not fit in the terminal are left out; in a pipe there are all of them.',
    options: [['--watch', 'go on and show changes, until Ctrl-C; with --json a line for each change'], JSON_OPTION],
    examples: [
      'list',
      'ls laptop',
      'list --watch',
      'list --json | jq -r \'.instances[] | select(.state == "waiting").name\'',
    ],
  },
  send: {
    usage: 'send NAME MESSAGE…',
    text: 'Sends a message to the latest session of an instance, or a new one. The answer goes to standard output as it\ncomes, all else to standard error. In a terminal you are asked for permissions at once; elsewhere it ends with 3.\nCtrl-C asks whether to stop following (the turn goes on) or to abort; a second one stops following.\nMESSAGE - is read from standard input; after -- it may begin with a dash.',
    options: [
      ['--session SESSION', 'id, its beginning, or a title that only one has'],
      ['--queue', 'where it is busy: send when it is idle (otherwise nothing is sent, with 4)'],
      ['--interrupt', 'where it is busy: abort that first'],
      ['--agent NAME, --model PROVIDER/MODEL', 'who answers'],
      ['--request-id ID', 'repeating it with the same ID sends nothing twice'],
      ['--no-wait', 'end when the message was taken'],
      TIMEOUT,
      JSON_OPTION,
    ],
    examples: [
      'send laptop run the tests and fix what fails',
      'git diff | opencode-mcp send review -',
      'send web --queue --timeout 600 "and now the docs"',
    ],
  },
  read: {
    usage: 'read NAME [SESSION]',
    text: 'The newest messages of a session, by default of the latest one.',
    options: [
      ['--limit N', 'so many messages (default: 10, at most 100)'],
      ['--before CURSOR', 'older messages; read prints the cursor when there are more'],
      ['--message ID [--offset N]', 'one message, from a character on; of a sent one the answer'],
      JSON_OPTION,
    ],
    examples: ['read laptop', 'read laptop "Fix the build" --limit 3'],
  },
  wait: {
    usage: 'wait [NAME…]',
    text: 'Until the first of these instances, by default of all that work, is idle, needs something, fails or vanishes;\nthen what it said. In a terminal you are asked for permissions at once.',
    options: [
      ['--all', 'until all of them are'],
      ['--session SESSION', 'with one NAME: only this session counts'],
      TIMEOUT,
      JSON_OPTION,
    ],
    examples: ['wait', 'wait laptop server --all', 'wait laptop --timeout 60 || echo "code $?"'],
  },
  respond: {
    usage: 'respond NAME',
    text: 'Shows what an agent waits for (the exact command, the question and its choices), asks you, and follows the turn\non. With --reply or --answer you are not asked, unless approvals say that only a person may.',
    options: [
      ['--reply once|reject', 'to a permission; reject to a question too'],
      ['--message TEXT', 'with --reply reject: what to do instead'],
      ['--answer TEXT', 'to a question; to several [["Red"],["Big","Small"]]'],
      ['--request ID', 'where several wait'],
      TIMEOUT,
      JSON_OPTION,
    ],
    examples: [
      'respond laptop',
      'respond laptop --reply reject --message "use the staging host"',
      'respond laptop --answer Blue',
    ],
  },
  abort: {
    usage: 'abort NAME [SESSION]',
    text: 'Stops what runs, by default in the session that runs, and makes sure that it stopped.',
    options: [JSON_OPTION],
    examples: ['abort laptop'],
  },
  sessions: {
    usage: 'sessions NAME',
    text: 'The sessions of an instance, the latest first.',
    options: [['--search TEXT', 'those with that in their titles'], JSON_OPTION],
    examples: ['sessions laptop', 'sessions laptop --search build'],
  },
  attach: {
    usage: 'attach NAME [SESSION]',
    text: "Opens the terminal of opencode on this machine (OPENCODE_BIN) on an instance, wherever that is. What needs a password or\nanother way than a plain connection goes through a port of this machine that ends with it. The exit code is opencode's.",
    examples: [
      'attach laptop',
      'attach laptop "Fix the build"',
      'OPENCODE_BIN=~/opencode-2/bin/opencode opencode-mcp attach desk:service',
    ],
  },
  open: {
    usage: 'open NAME [SESSION]',
    text: 'Opens the web page of an instance in the browser. Where the page needs a password or another way than a plain connection, it\nis there for the browser that opens it first, until Ctrl-C here.',
    options: [['--print', 'print the address, and start no browser']],
    examples: ['open laptop', 'open laptop --print'],
  },
  completion: {
    usage: 'completion SHELL',
    text: 'Prints what bash, zsh or fish reads for Tab to complete commands, options and names of instances: those that were\nlisted last, and those that are registered on this machine.',
    examples: [
      "echo 'source <(opencode-mcp completion bash)' >> ~/.bashrc",
      "echo 'source <(opencode-mcp completion zsh)' >> ~/.zshrc",
      "echo 'opencode-mcp completion fish | source' >> ~/.config/fish/config.fish",
    ],
  },
  doctor: {
    usage: 'doctor [NAME]',
    text: 'Looks at everything (sources, instances, tailnet, relay, LAN, MCP clients, files) for at most 20 seconds, changes\nnothing, and says what is broken and what to type; 1 if something is. With NAME: what became of that instance,\nfrom the source that saw it, or left it out, to its name.',
    options: [JSON_OPTION],
    examples: ['doctor', 'doctor laptop-web', "doctor --json | jq -r '.todo[] | .command // .text'"],
  },
  dashboard: {
    usage: 'dashboard',
    text: 'Opens the page of your instances in the browser: what needs you, works and is done. It is there for the browser that opens it\nfirst, on this machine alone, until Ctrl-C here. A node service shows it to your other devices.',
    options: [['--print', 'print the address, and start no browser']],
    examples: ['dashboard', 'dashboard --print'],
  },
  node: {
    usage: 'node',
    text: 'Serves your instances, and the page of them, to your other machines on the tailnet. It runs until you stop it.',
    options: [
      ['--revoke', 'end all connections to node services and dashboards of yours at once, and let none begin'],
      ['--allow', 'let them serve again'],
    ],
    examples: ['node', 'node --revoke'],
  },
  watch: {
    usage: 'watch',
    text: 'Watches your opencodes on this machine and notifies you, as "notify" in the config file has it, where no node service\ndoes: on a machine without a tailnet. It runs until you stop it.',
    examples: ['watch'],
  },
  notify: {
    usage: 'notify --test',
    text: 'Sends a test notification to every channel under "notify" in the config file, whatever its rules, and prints what each\nanswered; 1 if one failed. docs/notifications.md has examples.',
    options: [['--test', 'is needed']],
    examples: ['notify --test'],
  },
  serve: {
    usage: 'serve',
    text: 'The MCP server on standard input and output, in a terminal too.',
    examples: ['serve --read-only'],
  },
};

/** Names of commands that `help` knows, beside `init`. */
export const HELP_TOPICS: readonly string[] = [...Object.keys(COMMANDS), 'settings'];

/** How each command is written, for completion. */
export const USAGES: ReadonlyMap<string, CommandUsage> = new Map([
  ...Object.entries(COMMANDS).map(([name, { usage, options = [] }]) => {
    return [name, { usage, options: options.map(([flags]) => flags) }] as const;
  }),
  ['ls', { usage: 'ls [PART]', options: (COMMANDS['list']?.options ?? []).map(([flags]) => flags) }],
  ['init', { usage: 'init', options: initHelp().match(/^ +--[a-z]+(?: [A-Z@]+)?/gm) ?? [] }],
  ['help', { usage: 'help COMMAND', options: [] }],
]);

/** Of the whole where there is no topic; undefined where there is no such topic. */
export function helpText(topic?: string): string | undefined {
  if (topic === undefined) return HELP;
  if (topic === 'settings') return settingsHelp('opencode-mcp');
  const help = Object.hasOwn(COMMANDS, topic) ? COMMANDS[topic] : undefined;
  return help && commandHelp(help);
}

function commandHelp({ usage, text, options = [], examples }: CommandHelp): string {
  const width = Math.max(0, ...options.map(([flag]) => flag.length));
  return [
    `Usage: opencode-mcp ${usage} [options]`,
    '',
    text,
    ...(options.length === 0 ? [] : ['', 'Options, beside the settings (opencode-mcp help settings):']),
    ...options.map(([flag, what]) => `  ${flag.padEnd(width)}  ${what}`),
    '',
    'Examples:',
    ...examples.map((example) => `  ${example.includes('opencode-mcp ') ? '' : 'opencode-mcp '}${example}`),
    '',
  ].join('\n');
}
