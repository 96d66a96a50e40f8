//! Published networks by name, for figures of time and memory where no checkpoint is at hand.

use super::architecture::{Architecture, BlockKind, Decoder, Rope, RopeScaling};

/// Names that [`Architecture::named`] knows.
pub const NAMED: [&str; 6] =
    ["llama-2-7b", "llama-3.1-8b", "llama-3.2-1b", "qwen2.5-0.5b", "qwen2.5-7b", "qwen3-8b"];

impl Architecture {
    /// The network of this name, of [`NAMED`]; its numbers are those of the model's `config.json` on the
    /// Hugging Face hub.
    pub fn named(name: &str) -> Option<Self> {
        let llama = |scaling| Decoder {
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            tied: false,
            rope: Rope { theta: 10_000.0, scaling },
        };
        let llama3 = |factor| Decoder {
            rope: Rope {
                theta: 500_000.0,
                scaling: RopeScaling::Llama3 {
                    factor,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.0,
                    original_positions: 8192.0,
                },
            },
            ..llama(RopeScaling::None)
        };
        let qwen = || Decoder {
            rope: Rope { theta: 1_000_000.0, scaling: RopeScaling::None },
            ..llama(RopeScaling::None)
        };
        Some(match name {
            "llama-2-7b" => {
                causal([4096, 32, 32, 32, 128, 11_008, 32_000], 1e-5, llama(RopeScaling::None))
            }
            "llama-3.1-8b" => causal([4096, 32, 32, 8, 128, 14_336, 128_256], 1e-5, llama3(8.0)),
            "llama-3.2-1b" => {
                let decoder = Decoder { tied: true, ..llama3(32.0) };
                causal([2048, 16, 32, 8, 64, 8192, 128_256], 1e-5, decoder)
            }
            "qwen2.5-0.5b" => {
                let decoder = Decoder { qkv_bias: true, tied: true, ..qwen() };
                causal([896, 24, 14, 2, 64, 4864, 151_936], 1e-6, decoder)
            }
            "qwen2.5-7b" => {
                let decoder = Decoder { qkv_bias: true, ..qwen() };
                causal([3584, 28, 28, 4, 128, 18_944, 152_064], 1e-6, decoder)
            }
            "qwen3-8b" => {
                let decoder = Decoder { qk_norm: true, ..qwen() };
                causal([4096, 36, 32, 8, 128, 12_288, 151_936], 1e-6, decoder)
            }
            _ => return None,
        })
    }
}

/// A causal network of these dimensions, in the order of [`Architecture`]'s fields.
fn causal(dimensions: [i64; 7], norm_eps: f64, decoder: Decoder) -> Architecture {
    let [hidden, layers, heads, kv_heads, head_dim, ffn, vocab] = dimensions;
    let (init_std, blocks) = (0.02, BlockKind::Decoder(decoder));
    Architecture {
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        ffn,
        vocab,
        norm_eps,
        init_std,
        blocks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layout::model_specs;
    use crate::model::spec::TensorSpec;

    /// Parameters as the model cards count them.
    #[test]
    fn every_network_has_its_published_size() {
        let published = [
            6_738_415_616,
            8_030_261_248,
            1_235_814_400,
            494_032_768,
            7_615_616_512,
            8_190_735_360,
        ];
        for (name, expected) in NAMED.into_iter().zip(published) {
            let architecture = Architecture::named(name).expect("it is listed");
            let counted: i64 = model_specs(&architecture).iter().map(TensorSpec::numel).sum();
            assert_eq!(counted, expected, "{name}");
        }
        assert_eq!(Architecture::named("llama"), None);
    }
}
