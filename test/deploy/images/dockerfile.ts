/** The instructions of a Dockerfile, as far as ours go. Anything else is refused, so that no step is passed over. */
export type Instruction =
  | { type: 'workdir' | 'user' | 'run' | 'stopsignal'; text: string }
  | { type: 'copy'; sources: string[]; target: string; from: string | undefined; owner: string | undefined }
  | { type: 'env'; values: Record<string, string> }
  | { type: 'expose'; ports: number[] }
  | { type: 'cmd' | 'entrypoint' | 'healthcheck'; command: string[] };

export interface Stage {
  name: string;
  /** Another stage's name, or an image. */
  from: string;
  steps: Instruction[];
}

/** Reads a Dockerfile; `args` override the defaults of ARG. Throws an error that names the line that is not understood. */
export function parseDockerfile(text: string, args: Readonly<Record<string, string>> = {}): Stage[] {
  const variables: Record<string, string> = {};
  const stages: Stage[] = [];
  const lines = text.replaceAll(/\\\n/g, ' ').split('\n');
  for (const line of lines.map((it) => it.trim()).filter((it) => it !== '' && !it.startsWith('#'))) {
    const [, word = '', rest = ''] = /^(\S+)\s+(.*)$/.exec(line) ?? [];
    const value = rest.replaceAll(/\$\{(\w+)\}/g, (_, name: string) => {
      const given = variables[name];
      if (given === undefined) throw new Error(`no ARG ${name} before: ${line}`);
      return given;
    });
    if (word === 'ARG') {
      const [name = '', fallback = ''] = rest.split('=');
      variables[name] = args[name] ?? fallback;
    } else if (word === 'FROM') {
      const [from = '', , name = `${stages.length}`] = value.split(/\s+/);
      stages.push({ name, from, steps: [] });
    } else {
      const stage = stages.at(-1);
      if (stage === undefined) throw new Error(`before the first FROM: ${line}`);
      stage.steps.push(instruction(word, word === 'RUN' ? rest : value, line));
    }
  }
  return stages;
}

function instruction(word: string, rest: string, line: string): Instruction {
  switch (word) {
    case 'WORKDIR':
    case 'USER':
    case 'RUN':
    case 'STOPSIGNAL':
      return { type: word.toLowerCase() as 'run', text: rest };
    case 'COPY': {
      const words = rest.split(/\s+/);
      const flag = (name: string) => words.find((it) => it.startsWith(`--${name}=`))?.slice(name.length + 3);
      const paths = words.filter((it) => !it.startsWith('--'));
      return {
        type: 'copy',
        sources: paths.slice(0, -1),
        target: paths.at(-1) ?? '',
        from: flag('from'),
        owner: flag('chown'),
      };
    }
    case 'ENV':
      return {
        type: 'env',
        values: Object.fromEntries(rest.split(/\s+/).map((pair) => pair.split('=') as [string, string])),
      };
    case 'EXPOSE':
      return { type: 'expose', ports: rest.split(/\s+/).map(Number) };
    case 'CMD':
    case 'ENTRYPOINT':
      return { type: word.toLowerCase() as 'cmd', command: list(rest, line) };
    case 'HEALTHCHECK':
      return { type: 'healthcheck', command: list(rest.replace(/^.*?\bCMD\s+/, ''), line) };
    default:
      throw new Error(`not understood: ${line}`);
  }
}

/** Only the form with brackets: no shell stands between a signal and the program. */
function list(text: string, line: string): string[] {
  if (!text.startsWith('[')) throw new Error(`not a JSON list: ${line}`);
  return JSON.parse(text) as string[];
}
