import { jsonOf, messageOf } from '../../base/errors.ts';
import type { Settings } from '../../config/settings.ts';
import type { ExitCode } from '../status/places.ts';
import { SURVEY_FORMAT, type SurveyRequest, surveyRequest } from './registry-survey.ts';
import { localRegistry } from './registry.ts';

export interface SurveyOptions {
  readonly settings: Pick<Settings, 'registryDir' | 'stateDir'>;
  /** Of `SurveyRequest`, as JSON. Undefined: a survey of the directory that the settings name. */
  readonly request: NodeJS.ReadableStream | undefined;
  readonly out: (text: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Prints what lies in a registry directory of this machine, on one line of JSON: `{"survey": …}`, `{"removals": …}` where the request
 * has orders, `{"error": …}` and exit code 1 where it cannot. `opencode-connected` elsewhere runs it here over SSH.
 */
export async function runSurvey({ settings, request, out, signal }: SurveyOptions): Promise<ExitCode> {
  const say = (answer: object): void => out(`${JSON.stringify(answer)}\n`);
  try {
    const { path, explicit } = settings.registryDir;
    const asked =
      request === undefined ? { directory: path, isDefault: !explicit, orders: undefined } : await read(request);
    const registry = localRegistry({ ...asked, stateDir: settings.stateDir });
    say(
      asked.orders === undefined
        ? { survey: await registry.survey(signal) }
        : { removals: await registry.remove(asked.orders, signal) },
    );
    return 0;
  } catch (error) {
    say({ error: messageOf(error) });
    return 1;
  }
}

/** Orders for the most registrations that are read are some 4 MB. */
const MAX_REQUEST_BYTES = 16 * 1024 * 1024;

async function read(stream: NodeJS.ReadableStream): Promise<SurveyRequest> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    const piece = Buffer.from(chunk);
    bytes += piece.length;
    if (bytes > MAX_REQUEST_BYTES)
      throw new Error(`the request on standard input has more than ${MAX_REQUEST_BYTES} bytes`);
    chunks.push(piece);
  }
  const parsed = surveyRequest.safeParse(jsonOf(Buffer.concat(chunks).toString('utf8')));
  if (parsed.success) return parsed.data;
  throw new Error(
    `the request on standard input is none that this version knows (format ${SURVEY_FORMAT}); upgrade the older opencode-connected of the two`,
  );
}
