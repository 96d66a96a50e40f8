//! What the names of stored tensors mean: a folder may hold a bare model, one under a head, or one
//! with more than this project computes with.

use super::config_json::Family;

/// Our name for a stored tensor: that of `LlamaForCausalLM`, or of a bare `BertModel` or
/// `LongformerModel`. `None` for tensors that change nothing here.
///
/// Names that mean nothing come back as they are; they turn up as extra when compared with the
/// model's.
pub(super) fn ours(family: Family, tied: bool, stored: &str) -> Option<String> {
    if family.is_encoder() { encoder(family, stored) } else { decoder(tied, stored) }
}

fn decoder(tied: bool, stored: &str) -> Option<String> {
    // Frequencies follow from the config. A tied head is the embedding, stored twice.
    let derived = stored.ends_with("rotary_emb.inv_freq");
    if derived || (tied && stored == "lm_head.weight") {
        return None;
    }
    let bare = ["embed_tokens.", "layers.", "norm."].iter().any(|start| stored.starts_with(start));
    Some(if bare { format!("model.{stored}") } else { stored.to_owned() })
}

fn encoder(family: Family, stored: &str) -> Option<String> {
    let bare = stored.strip_prefix(&format!("{family}.")).unwrap_or(stored);
    let unused = ["pooler.", "cls.", "lm_head."].iter().any(|start| bare.starts_with(start));
    if unused || bare == "embeddings.position_ids" {
        return None;
    }
    // The spelling of TensorFlow's BERT, which the first checkpoints still have.
    let renamed = [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")];
    let old = renamed.iter().find_map(|(old, new)| Some(bare.strip_suffix(old)?.to_owned() + new));
    Some(old.unwrap_or_else(|| bare.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(family: Family, tied: bool, cases: &[(&str, Option<&str>)]) {
        for (stored, expected) in cases {
            assert_eq!(ours(family, tied, stored).as_deref(), *expected, "{stored}");
        }
    }

    #[test]
    fn bare_and_headed_decoders_have_the_same_names() {
        let both = [
            ("norm.weight", Some("model.norm.weight")),
            ("model.norm.weight", Some("model.norm.weight")),
            ("layers.0.mlp.up_proj.weight", Some("model.layers.0.mlp.up_proj.weight")),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", None),
            ("score.weight", Some("score.weight")),
        ];
        check(Family::Llama, false, &both);
        check(Family::Qwen3, true, &both);
    }

    #[test]
    fn a_head_is_left_out_only_where_it_is_the_embedding() {
        check(Family::Llama, true, &[("lm_head.weight", None)]);
        check(Family::Llama, false, &[("lm_head.weight", Some("lm_head.weight"))]);
    }

    #[test]
    fn encoders_lose_their_prefix_their_heads_and_old_spellings() {
        let word = "embeddings.word_embeddings.weight";
        let cases = [
            ("bert.embeddings.word_embeddings.weight", Some(word)),
            (word, Some(word)),
            ("bert.embeddings.LayerNorm.gamma", Some("embeddings.LayerNorm.weight")),
            ("bert.embeddings.LayerNorm.beta", Some("embeddings.LayerNorm.bias")),
            ("bert.embeddings.position_ids", None),
            ("bert.pooler.dense.bias", None),
            ("cls.predictions.bias", None),
            ("longformer.embeddings.x", Some("longformer.embeddings.x")),
        ];
        check(Family::Bert, false, &cases);
        let item = "embeddings.item_position_embeddings.weight";
        check(Family::Longformer, false, &[(&format!("longformer.{item}"), Some(item))]);
        check(Family::Longformer, false, &[("lm_head.dense.weight", None)]);
    }
}
