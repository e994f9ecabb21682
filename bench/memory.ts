import { credentials } from '@grpc/grpc-js';
import { KvPolicyClient, type WatchResponse } from '../proto/gen/crystalkv/v1/policy.ts';
import { mean } from './statistics.ts';

/** The shortest interval that the policy service allows. */
export const SAMPLE_MS = 50;

/** What was in the cache while requests ran. */
export interface MemoryUse {
  /** KV blocks of the pool in use, over the samples in which anything ran. */
  meanPoolBlocks: number;
  peakPoolBlocks: number;
  /** Resident blocks beyond the prompt's, per request: mean over samples, and the most that each request held. */
  meanOutputBlocks: number;
  peakOutputBlocks: readonly number[];
}

/** The same as `MemoryUse`'s, of the requests of one profile. */
export interface ProfileMemory {
  meanOutputBlocks: number;
  peakOutputBlocks: number;
}

export interface ServiceMemory extends MemoryUse {
  byProfile: ReadonlyMap<string, ProfileMemory>;
}

/** Samples the policy service's `Watch` stream until `stop`. */
export interface MemoryWatch {
  /** Rejects when the stream broke or nothing was seen to run. */
  stop(): Promise<MemoryUse>;
}

export async function watchMemory(
  policyAddress: string,
  blockSize: number,
): Promise<{ stop(): Promise<ServiceMemory> }> {
  const client = new KvPolicyClient(policyAddress, credentials.createInsecure(), {
    // A message holds the keep values of every request.
    'grpc.max_receive_message_length': 64 << 20,
  });
  const stream = client.watch({ intervalMs: SAMPLE_MS, crystalkvId: '' });
  const pool: number[] = [];
  const output: number[] = [];
  const profiles = new Map<string, { output: number[]; peak: number }>();
  const peaks = new Map<string, number>();
  let failure: Error | undefined;

  const take = (response: WatchResponse) => {
    const used = response.engines.map(({ pool: state }) => (state ? state.totalBlocks - state.freeBlocks : 0));
    if (response.requests.length > 0) pool.push(used.reduce((sum, blocks) => sum + blocks, 0));
    for (const request of response.requests) {
      const prompt = Math.ceil(request.promptTokens / blockSize);
      const key = `${request.engineId} ${request.handle}`;
      const own = profiles.get(request.profile) ?? { output: [], peak: 0 };
      profiles.set(request.profile, own);
      const held = request.residentBlocks - prompt;
      if (request.computedTokens > request.promptTokens) {
        output.push(held);
        own.output.push(held);
      }
      const peak = request.peakResidentBlocks - prompt;
      peaks.set(key, Math.max(peaks.get(key) ?? 0, peak));
      own.peak = Math.max(own.peak, peak);
    }
  };
  // The first message says that the stream is up.
  await new Promise<void>((resolve, reject) => {
    stream.on('data', (response: WatchResponse) => {
      take(response);
      resolve();
    });
    stream.on('error', (error) => {
      failure = error;
      reject(error);
    });
  });
  let stopped = false;
  stream.on('error', (error) => {
    if (!stopped) failure = error;
  });
  return {
    stop: async () => {
      stopped = true;
      stream.cancel();
      client.close();
      if (failure !== undefined) throw failure;
      if (pool.length === 0 || output.length === 0) throw new Error('no request was seen at the policy service');
      return {
        meanPoolBlocks: mean(pool),
        peakPoolBlocks: Math.max(...pool),
        meanOutputBlocks: mean(output),
        peakOutputBlocks: [...peaks.values()],
        byProfile: new Map(
          [...profiles]
            .filter(([, own]) => own.output.length > 0)
            .map(([name, own]) => [name, { meanOutputBlocks: mean(own.output), peakOutputBlocks: own.peak }]),
        ),
      };
    },
  };
}
