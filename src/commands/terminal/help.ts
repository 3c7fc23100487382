import { settingsHelp } from '../../config/help.ts';
import { initHelp } from '../../setup/help.ts';

/** One screen: 24 lines of 80 columns. */
const HELP = `opencode-mcp finds every OpenCode instance you run and drives them.

In a shell (NAME may be a part of a name that only one instance has):
  list                    every instance and its state; --watch updates; or ls
  send NAME MESSAGE…      send a message, show the answer as it comes
  read NAME [SESSION]     show the newest messages
  wait [NAME…]            until any is idle, needs something or fails
  respond NAME            answer its permission request or question
  abort NAME [SESSION]    stop what runs
  sessions NAME           list its sessions
  attach NAME [SESSION]   open opencode's own terminal on it; open: its web page
  dashboard               see and drive all of them in the browser
Set up:
  init                    add opencode-mcp to the MCP clients on this machine
  doctor [NAME]           why an instance is missing, and what to type
  node                    serve your instances to your own tailnet
  watch, notify --test    notifications without node; test every channel
  completion SHELL        complete names with Tab: bash, zsh or fish
Without a command, on pipes, it is the MCP server: clients start it like that.
help COMMAND has options and examples, help settings all settings; --version.
Exit codes: 0 done, 1 failed, aborted or not found, 2 wrong usage, 3 it waits
for a person, 4 nothing was sent (busy, not reached), 124 it still runs.
`;

/** The words and flags of a command, for completion. */
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

const TIMEOUT = ['--timeout SECONDS', 'stop following after this long (default: 7 days), with exit code 124'] as const;
const JSON_OPTION = ['--json', 'print the result as JSON when it is complete'] as const;

const COMMANDS: Readonly<Record<string, CommandHelp>> = {
  list: {
    usage: 'list [PART]',
    text: 'Lists every instance, or those with PART in their names: state, what it waits for, where it runs. In a\nterminal, columns that do not fit are left out; a pipe gets all of them.',
    options: [['--watch', 'show changes until Ctrl-C; with --json one line for each change'], JSON_OPTION],
    examples: [
      'list',
      'ls laptop',
      'list --watch',
      'list --json | jq -r \'.instances[] | select(.state == "waiting").name\'',
    ],
  },
  send: {
    usage: 'send NAME MESSAGE…',
    text: 'Sends a message to the latest session of an instance, or a new one. The answer goes to standard output as it\ncomes, everything else to standard error. If the agent asks for something, you are asked in a terminal; without\none, it ends with 3. Ctrl-C asks whether to stop following (the turn continues) or to abort; a second one stops\nfollowing. MESSAGE - reads standard input; after --, MESSAGE may start with a dash.',
    options: [
      ['--session SESSION', 'its id, the beginning of its id, or a unique title'],
      ['--queue', 'if it is busy: send when it is idle (by default nothing is sent, with 4)'],
      ['--interrupt', 'if it is busy: abort that first'],
      ['--agent NAME, --model PROVIDER/MODEL', 'who answers'],
      ['--request-id ID', 'repeating the command with the same ID sends nothing twice'],
      ['--no-wait', 'end once the message is accepted'],
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
    text: 'Shows the newest messages of a session, by default the latest session.',
    options: [
      ['--limit N', 'number of messages (default: 10, at most 100)'],
      ['--before CURSOR', 'older messages; read prints the cursor if there are more'],
      ['--message ID [--offset N]', 'one message, from this character on; for one you sent, its answer'],
      JSON_OPTION,
    ],
    examples: ['read laptop', 'read laptop "Fix the build" --limit 3'],
  },
  wait: {
    usage: 'wait [NAME…]',
    text: 'Waits until any of these instances is idle, needs something, fails or vanishes, then shows what it said. Without\nNAME it waits for all that work. If an agent asks for something, you are asked in a terminal.',
    options: [
      ['--all', 'wait for all of them'],
      ['--session SESSION', 'with one NAME: wait for this session only'],
      TIMEOUT,
      JSON_OPTION,
    ],
    examples: ['wait', 'wait laptop server --all', 'wait laptop --timeout 60 || echo "code $?"'],
  },
  respond: {
    usage: 'respond NAME',
    text: 'Shows what an agent waits for (the exact command, or the question and its choices), asks you, and follows the\nturn. With --reply or --answer you are not asked, unless approvals require a person.',
    options: [
      ['--reply once|reject', 'answer a permission request; reject also a question'],
      ['--message TEXT', 'with --reply reject: what to do instead'],
      ['--answer TEXT', 'answer a question; for several: [["Red"],["Big","Small"]]'],
      ['--request ID', 'if several wait'],
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
    text: 'Stops the running turn, by default of the session that runs, and verifies that it stopped.',
    options: [JSON_OPTION],
    examples: ['abort laptop'],
  },
  sessions: {
    usage: 'sessions NAME',
    text: 'Lists the sessions of an instance, latest first.',
    options: [['--search TEXT', 'only sessions with this in the title'], JSON_OPTION],
    examples: ['sessions laptop', 'sessions laptop --search build'],
  },
  attach: {
    usage: 'attach NAME [SESSION]',
    text: "Opens opencode's own terminal (OPENCODE_BIN on this machine) on an instance on any machine. If the instance needs more than\na plain connection, such as a password, a local port forwards to it while the terminal is open. The exit code is opencode's.",
    examples: [
      'attach laptop',
      'attach laptop "Fix the build"',
      'OPENCODE_BIN=~/opencode-2/bin/opencode opencode-mcp attach desk:service',
    ],
  },
  open: {
    usage: 'open NAME [SESSION]',
    text: 'Opens the web page of an instance in the browser. If the instance needs more than a plain connection, such as a password, the\npage is forwarded until Ctrl-C, to the first browser that opens it.',
    options: [['--print', 'print the address instead of starting a browser']],
    examples: ['open laptop', 'open laptop --print'],
  },
  completion: {
    usage: 'completion SHELL',
    text: 'Prints the script with which bash, zsh or fish completes commands, options and instance names (those listed last and\nthose registered on this machine).',
    examples: [
      "echo 'source <(opencode-mcp completion bash)' >> ~/.bashrc",
      "echo 'source <(opencode-mcp completion zsh)' >> ~/.zshrc",
      "echo 'opencode-mcp completion fish | source' >> ~/.config/fish/config.fish",
    ],
  },
  doctor: {
    usage: 'doctor [NAME]',
    text: 'Checks everything (sources, instances, tailnet, relay, LAN, MCP clients, files) for at most 20 seconds, changes\nnothing, and says what is broken and what to type; 1 if anything is broken. With NAME: which source saw that\ninstance or left it out, how it is reached, and what it is called.',
    options: [JSON_OPTION],
    examples: ['doctor', 'doctor laptop-web', "doctor --json | jq -r '.todo[] | .command // .text'"],
  },
  dashboard: {
    usage: 'dashboard',
    text: 'Opens the page of your instances in the browser: which need you, work and are done. Until Ctrl-C it serves the first browser\nthat opens it, on this machine only. The node service shows the page to your other devices.',
    options: [['--print', 'print the address instead of starting a browser']],
    examples: ['dashboard', 'dashboard --print'],
  },
  node: {
    usage: 'node',
    text: 'Serves your instances, and the page of them, to your other machines on the tailnet. Runs until you stop it.',
    options: [
      ['--revoke', 'cut all connections to your node service and dashboards at once, and serve nothing'],
      ['--allow', 'serve again'],
    ],
    examples: ['node', 'node --revoke'],
  },
  watch: {
    usage: 'watch',
    text: 'Notifies you of your opencodes on this machine, by "notify" in the config file, on a machine without a node service.\nRuns until you stop it.',
    examples: ['watch'],
  },
  notify: {
    usage: 'notify --test',
    text: 'Sends a test notification to every channel under "notify" in the config file, regardless of its rules, and prints what\neach answered; 1 if one failed. docs/notifications.md has examples.',
    options: [['--test', 'required']],
    examples: ['notify --test'],
  },
  serve: {
    usage: 'serve',
    text: 'Runs the MCP server on standard input and output, even in a terminal.',
    examples: ['serve --read-only'],
  },
};

/** Topics of `help` beside `init`. */
export const HELP_TOPICS: readonly string[] = [...Object.keys(COMMANDS), 'settings'];

/** For completion. */
export const USAGES: ReadonlyMap<string, CommandUsage> = new Map([
  ...Object.entries(COMMANDS).map(([name, { usage, options = [] }]) => {
    return [name, { usage, options: options.map(([flags]) => flags) }] as const;
  }),
  ['ls', { usage: 'ls [PART]', options: (COMMANDS['list']?.options ?? []).map(([flags]) => flags) }],
  ['init', { usage: 'init', options: initHelp().match(/^ +--[a-z]+(?: [A-Z@]+)?/gm) ?? [] }],
  ['help', { usage: 'help COMMAND', options: [] }],
]);

/** Without a topic, the overview; undefined for an unknown topic. */
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
    ...(options.length === 0 ? [] : ['', 'Options, besides the settings (opencode-mcp help settings):']),
    ...options.map(([flag, what]) => `  ${flag.padEnd(width)}  ${what}`),
    '',
    'Examples:',
    ...examples.map((example) => `  ${example.includes('opencode-mcp ') ? '' : 'opencode-mcp '}${example}`),
    '',
  ].join('\n');
}
