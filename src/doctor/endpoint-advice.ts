import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

import { quoteName, shellWord, singleLine } from '../base/plain-text.ts';
import type { Settings } from '../config/settings.ts';
import { MDNS_SOURCE } from '../discovery/mdns/mdns.ts';
import { REGISTRY_SOURCE } from '../discovery/registry/registry.ts';
import { SERVICE_SOURCE } from '../discovery/service/service.ts';
import { STATIC_SOURCE } from '../discovery/static.ts';
import type { Candidate } from '../model/candidate.ts';
import type { Instance, ProbedEndpoint } from '../model/instance.ts';
import { adviceIn, type Advice } from './report.ts';

/** Paths for the commands of advice. */
export interface AdvicePlaces extends Pick<Settings, 'registryDir' | 'stateDir'> {
  /** The configuration file, whether it exists or not. */
  readonly configFile: string;
}

const MAX_NAME_CHARS = 128;

/** What to do about an endpoint; undefined if nothing is wrong with it. */
export function adviceOn(
  { candidate, result, passwordFrom }: ProbedEndpoint,
  instance: Instance,
  places: AdvicePlaces,
): Advice | undefined {
  switch (result.status) {
    case 'healthy':
    case 'unknown':
      return undefined;
    case 'untrusted':
      return adviceIn(result.reason);
    case 'unsupported':
      if (result.reason.includes('update opencode-mcp')) return { text: 'update opencode-mcp on this machine' };
      return { text: `on ${quoteName(instance.host)}, then start that opencode again:`, command: 'opencode upgrade' };
    case 'locked':
      if (result.isWithheld === true)
        return candidate.source === REGISTRY_SOURCE && result.reason.includes('end that process')
          ? {
              text: "end that user's process, or remove the registration",
              command: `rm ${shellWord(registrationFile(candidate, places))}`,
            }
          : adviceIn(result.reason);
      return passwordFrom === undefined
        ? missingPassword(candidate, result.reason, places)
        : {
            text: `the password from ${passwordFrom} is not that of ${shownUrl(candidate)}: put the right one there, or start that opencode again`,
          };
    case 'unhealthy':
      return unhealthy(candidate, result.reason, instance, places);
  }
}

function missingPassword(candidate: Candidate, reason: string, places: AdvicePlaces): Advice | undefined {
  const isUnknown = reason.includes('none is known for it');
  // If a password file cannot be read, the reason says what to do.
  if (!isUnknown) return adviceIn(reason);
  const { source, credential } = candidate;
  if (credential?.password.kind === 'file') {
    const path = shellWord(credential.password.path);
    return {
      text: 'start it again with opencode-connected; or run this, then type its password, Enter and Ctrl-D',
      command: `(umask 077; mkdir -p ${shellWord(dirname(credential.password.path))}; cat > ${path})`,
    };
  }
  const file = shellWord(places.configFile);
  if (source === STATIC_SOURCE)
    return {
      text: `put its password into a file of yours, and into its entry under "instances" in ${file}:`,
      command: '"password": { "file": "~/.secrets/NAME" }',
    };
  return {
    text: `put its password into a file of yours, and this under "credentials" in ${file}:`,
    command: JSON.stringify(ruleFor(candidate)),
  };
}

/** A rule for this instance; with the source for mDNS, where anyone can advertise any name. */
function ruleFor({ source, claims: { name, hostname }, endpoint }: Candidate): object {
  const host = hostname ?? new URL(endpoint.url).hostname.replace(/^\[|\]$/g, '');
  const file = `~/.secrets/${(name ?? host).replace(/[^\w.-]+/g, '-')}`;
  return {
    ...(source === MDNS_SOURCE && { source }),
    ...(name === undefined ? { host } : { name }),
    password: { file },
  };
}

function unhealthy(candidate: Candidate, reason: string, { host }: Instance, places: AdvicePlaces): Advice {
  const isClosed = reason.includes('ECONNREFUSED');
  const isOther =
    /another instance answers|not the answer of an opencode|not an opencode server|redirect|web page|not JSON|protocol|HTTP 4\d\d/.test(
      reason,
    );
  switch (candidate.source) {
    case REGISTRY_SOURCE:
      return unhealthyRegistration(candidate, isClosed ? 'closed' : isOther ? 'other' : 'silent', places);
    case SERVICE_SOURCE:
      return isClosed
        ? { text: 'the OpenCode 2 service has ended; start it', command: 'opencode service start' }
        : { text: 'the OpenCode 2 service does not answer; restart it', command: 'opencode service restart' };
    case STATIC_SOURCE: {
      const entry = `its entry under "instances" in ${shellWord(places.configFile)}`;
      if (isOther)
        return {
          text: `something else answers there, such as a proxy or a login page: set the "headers" that it needs in ${entry}, or correct "url" there`,
        };
      return {
        text: `check that opencode runs at ${shownUrl(candidate)}, or correct "url" in ${entry}`,
      };
    }
    default:
      return adviceIn(candidate.hint ?? '') ?? { text: `start opencode-connected on ${quoteName(host)} again` };
  }
}

function unhealthyRegistration(candidate: Candidate, how: 'closed' | 'other' | 'silent', places: AdvicePlaces): Advice {
  const file = registrationFile(candidate, places);
  const { hostname } = candidate.claims;
  const host = hostname === undefined ? 'its machine' : quoteName(hostname);
  if (how === 'silent')
    return {
      text: `something listens there and does not answer: check that opencode on ${host}, or end it and start it again`,
    };
  const what = how === 'other' ? 'something else has its port now' : 'nothing listens there any more';
  const again = `${what}: start opencode-connected on ${host} again, or remove the registration`;
  // opencode-connected can clean up its own registrations, passwords included.
  const isItsOwn = existsSync(join(dirname(file), `.${basename(file, '.json')}.claim`));
  if (isItsOwn && how === 'closed')
    return { text: again, command: `${registryVariable(places)}opencode-connected cleanup` };
  return { text: again, command: `rm ${shellWord(file)}` };
}

/** The registry source's keys are names of files. */
function registrationFile({ key }: Candidate, { registryDir, stateDir }: AdvicePlaces): string {
  const isOwn = key.startsWith('own/');
  const directory = isOwn ? join(stateDir, 'registry') : registryDir.path;
  const name = isOwn ? key.slice('own/'.length) : key;
  return join(directory, name.includes('%') ? decodeURIComponent(name) : name);
}

/** For opencode-connected, which may run without this setting. */
function registryVariable({ registryDir }: AdvicePlaces): string {
  return registryDir.explicit ? `RELAY_REGISTRY_DIR=${shellWord(registryDir.path)} ` : '';
}

function shownUrl({ endpoint }: Candidate): string {
  return singleLine(endpoint.url, MAX_NAME_CHARS);
}
