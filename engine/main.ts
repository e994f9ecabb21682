import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { listen } from '../common/http.ts';
import { createLogger } from '../common/logger.ts';
import { runProgram } from '../common/program.ts';
import { within } from '../common/time.ts';
import { EngineConfig } from './config.ts';
import { createEngine } from './engine.ts';
import { createEngineHttp } from './http/app.ts';
import { loadSamplingDefaults } from './http/generation-defaults.ts';
import { loadTokenizer } from './http/tokenizer.ts';

const packageJson = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

/** A relative folder is looked up in the working directory, then next to the engine, where crystal-mini is. */
function findModel(folder: string): string {
  const own = fileURLToPath(new URL(`../${folder}`, import.meta.url));
  return !existsSync(folder) && existsSync(own) ? own : folder;
}

/** How long running requests may take after the first signal. */
const DRAIN_MS = 10_000;

await runProgram<{ engine: EngineConfig }>({
  name: 'engine',
  summary: 'a small embedded engine with an OpenAI API, paged KV cache and evictions',
  sections: { engine: { section: 'engine', schema: EngineConfig } },
  async start({ engine: given }) {
    const config = { ...given, model: findModel(given.model) };
    const logger = createLogger('engine', config.log_level);
    const tokenizer = loadTokenizer(config.model);
    const engine = await createEngine(config, (text) => tokenizer.encode(text, false), logger);
    const http = createEngineHttp({
      engine,
      tokenizer,
      modelName: config.served_model_name,
      version: packageJson.version,
      defaults: loadSamplingDefaults(config.model),
      logger,
    });
    const server = await listen(http.handler, config.host, config.port);
    logger.info({ url: server.url, port: server.port, ...engine.info }, 'listening');
    engine.onFailure(() => process.kill(process.pid, 'SIGTERM'));
    const stop = async () => {
      const closed = server.close();
      await within(http.drain(), DRAIN_MS);
      await http.close();
      server.server.closeAllConnections();
      await closed;
      await engine.close();
    };
    return { stop };
  },
});
