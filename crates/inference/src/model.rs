//! A model for inference, and its prompts.

use std::path::Path;
use std::sync::Arc;

use embodied_r_policy::tokenizer::{GenerationPrompt, RenderedChat, Tokenizer};
use embodied_r_policy::{InferenceModel, Prompt, TensorParallel, WeightPlacement};
use embodied_r_vision::{
    ImageEmbeddings, VisionEncoder, VisionLanguageModel, VisionOptions, VisionProcessor,
};
use serde::Serialize;

use crate::error::Result;

/// A model for inference. Clones share the weights.
#[derive(Clone)]
pub struct Model {
    /// The decoder.
    pub decoder: Arc<InferenceModel>,
    /// The vision encoder, if the model accepts images.
    pub vision_encoder: Option<Arc<VisionEncoder>>,
    /// The tokenizer with the chat template.
    pub tokenizer: Arc<Tokenizer>,
}

/// The prompt of a conversation.
pub struct ChatPrompt {
    /// The conversation, rendered by the chat template.
    pub chat: RenderedChat,
    /// Its tokens, with image embeddings in place of placeholders.
    pub prompt: Prompt,
}

impl AsRef<[u32]> for ChatPrompt {
    /// The token ids.
    fn as_ref(&self) -> &[u32] {
        self.prompt.ids()
    }
}

impl Model {
    /// Loads a decoder with its tokenizer from `dir`, a folder or a GGUF file.
    ///
    /// # Errors
    /// Those of [`Tokenizer::from_dir`] and [`InferenceModel::load`].
    pub fn load(dir: &Path, placement: WeightPlacement) -> Result<Self> {
        Self::load_with(dir, Tokenizer::from_dir(dir)?, placement)
    }

    /// [`Self::load`] with the tokenizer, which has been loaded before.
    ///
    /// # Errors
    /// Those of [`InferenceModel::load`].
    pub fn load_with(dir: &Path, tokenizer: Tokenizer, placement: WeightPlacement) -> Result<Self> {
        let tokenizer = Arc::new(tokenizer);
        let decoder = Arc::new(InferenceModel::load(dir, placement)?);
        Ok(Self { decoder, vision_encoder: None, tokenizer })
    }

    /// Loads a vision-language model.
    ///
    /// # Errors
    /// Those of [`Tokenizer::from_dir`] and [`VisionLanguageModel::load`].
    pub fn load_with_vision(dir: &Path, options: &VisionOptions) -> Result<Self> {
        Self::load_shard(dir, options, &TensorParallel::single_rank())
    }

    /// [`Self::load_with_vision`] for one tensor-parallel rank: its shard of the decoder, and the whole vision encoder.
    ///
    /// # Errors
    /// Those of [`Tokenizer::from_dir`] and [`VisionLanguageModel::load_part`].
    pub(crate) fn load_shard(
        dir: &Path,
        options: &VisionOptions,
        ranks: &TensorParallel,
    ) -> Result<Self> {
        let tokenizer = Arc::new(Tokenizer::from_dir(dir)?);
        VisionProcessor::of_model(dir)?.check_tokenizer(&tokenizer)?;
        let model = VisionLanguageModel::load_part(dir, options, ranks)?;
        let vision_encoder = Some(model.vision_encoder().clone());
        Ok(Self { decoder: model.decoder().clone(), vision_encoder, tokenizer })
    }

    /// The context length: the most tokens of a prompt and its completion together.
    #[must_use]
    pub fn max_model_len(&self) -> usize {
        self.decoder.config().max_position_embeddings
    }

    /// The prompt of a conversation, with the start of the model's turn. Messages are objects with a role and a content,
    /// which is a text or, with images, a list of parts; `images` take the place of the placeholders, in order.
    ///
    /// # Errors
    /// The chat template is missing or rejects the conversation, or placeholders and images differ in number.
    pub fn prompt(
        &self,
        messages: &[impl Serialize],
        images: &[ImageEmbeddings],
    ) -> Result<ChatPrompt> {
        let chat = self.tokenizer.apply_chat_template(messages, GenerationPrompt::Append)?;
        let prompt = match &self.vision_encoder {
            Some(encoder) => encoder.chat_prompt(&self.tokenizer, &chat, images)?,
            None => self.tokenizer.encode_chat(&chat)?.into(),
        };
        Ok(ChatPrompt { chat, prompt })
    }
}
