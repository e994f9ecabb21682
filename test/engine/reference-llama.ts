import { TINY, type TinyWeights } from './tiny-llama.ts';

type Vector = Float64Array<ArrayBuffer>;

/**
 * Logits [vocab] after the last of these tokens, in float64, with no cache: the definition of the network and nothing else.
 * `embedding`: for looking up tokens, where it is not the matrix that gives the logits. `onWeights` is told what each query
 * gives to the tokens before it and to itself.
 */
export function referenceLogits(
  weights: TinyWeights,
  tokenIds: readonly number[],
  embedding = weights.get('model.embed_tokens')!.data,
  onWeights: (layer: number, head: number, query: number, weights: readonly number[]) => void = () => {},
): Vector {
  const { hidden, intermediate, layers, heads, kvHeads, headDim, eps } = TINY;
  const times = (name: string, x: Vector): Vector => {
    const { shape, data } = weights.get(name)!;
    const cols = shape[1]!;
    return Float64Array.from({ length: shape[0]! }, (_, r) =>
      x.reduce((sum, v, c) => sum + v * data[r * cols + c]!, 0),
    );
  };
  const norm = (name: string, x: Vector): Vector => {
    const scale = 1 / Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / hidden + eps);
    return x.map((v, i) => v * scale * weights.get(name)!.data[i]!);
  };
  let states = tokenIds.map((id) => Float64Array.from(embedding.subarray(id * hidden, (id + 1) * hidden)));
  for (let layer = 0; layer < layers; layer++) {
    const at = `model.layers.${layer}`;
    const normed = states.map((x) => norm(`${at}.input_layernorm`, x));
    const head = (x: Vector, h: number) => x.subarray(h * headDim, (h + 1) * headDim);
    const project = (name: string) => normed.map((x) => times(`${at}.self_attn.${name}_proj`, x));
    const [q, k, v] = [project('q'), project('k'), project('v')];
    states = states.map((x, t) => {
      const mixed = new Float64Array(heads * headDim);
      for (let h = 0; h < heads; h++) {
        const kv = Math.floor(h / (heads / kvHeads));
        const query = rotated(head(q[t]!, h), t);
        const scores = Array.from(
          { length: t + 1 },
          (_, s) => dot(query, rotated(head(k[s]!, kv), s)) / headDim ** 0.5,
        );
        const powers = scores.map((score) => Math.exp(score - Math.max(...scores)));
        const total = powers.reduce((sum, power) => sum + power, 0);
        onWeights(
          layer,
          h,
          t,
          powers.map((power) => power / total),
        );
        powers.forEach((power, s) => {
          head(v[s]!, kv).forEach((value, d) => {
            mixed[h * headDim + d]! += (power / total) * value;
          });
        });
      }
      const attended = added(x, times(`${at}.self_attn.o_proj`, mixed));
      const y = norm(`${at}.post_attention_layernorm`, attended);
      const [gate, up] = [times(`${at}.mlp.gate_proj`, y), times(`${at}.mlp.up_proj`, y)];
      const inner = Float64Array.from(
        { length: intermediate },
        (_, i) => (gate[i]! / (1 + Math.exp(-gate[i]!))) * up[i]!,
      );
      return added(attended, times(`${at}.mlp.down_proj`, inner));
    });
  }
  return times('model.embed_tokens', norm('model.norm', states.at(-1)!));
}

function rotated(x: Vector, position: number): Vector {
  const half = x.length / 2;
  return x.map((value, d) => {
    const angle = position * TINY.theta ** (-(d % half) / half);
    const other = d < half ? -x[d + half]! : x[d - half]!;
    return value * Math.cos(angle) + other * Math.sin(angle);
  });
}

const dot = (a: Vector, b: Vector): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const added = (a: Vector, b: Vector): Vector => a.map((value, i) => value + b[i]!);
