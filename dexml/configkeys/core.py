"""Keys of every run. Names, defaults and meanings of DEXML (arXiv 2310.10636) first, ours beside them."""

from typing import Annotated, Literal

from pydantic import Field

from dexml.configkeys.kinds import Count, KeyGroup, Natural, NotNegative, Positive


class CoreKeys(KeyGroup):
    # The run: names and places
    project: str = "DEXML"
    """Name of the project. Results go to <results_root>/<project>/<dataset>/<expname>/."""
    expname: str = "dexml-exp"
    """Name of the run. Give every configuration its own; [key] stands for a value, as in run_[loss_criterion]_[tau]."""
    desc: str = "Transformer based dual encoder training"
    """Free description of the run. It changes nothing."""
    data_root: str = "Datasets"
    """Folder that holds the data sets."""
    results_root: str = "Results"
    """Folder that results are written under."""
    save: bool = True
    """Keep the best model and its predictions. Switch off for trials whose metrics are all you want."""
    save_interval: Natural = 1000
    """Steps between checkpoints that a killed run resumes from. 0 writes them only at evaluations."""
    save_keep: Count = 2
    """Checkpoints kept. Older ones are deleted."""
    resume: str = "auto"
    """Where a run starts: auto (its newest checkpoint if there is one), never, or the path of a checkpoint."""
    resume_path: str = ""
    """Weights to start from, with a new optimiser and schedule. For going on with a killed run use resume."""
    tracker: str = "none"
    """Experiment trackers by their Accelerate names, comma separated: tensorboard, wandb. none writes files only."""
    log_interval: Count = 10
    """Steps between lines of the log."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of initial weights, order, sampling and dropout. Same seed, machine and processes: same run."""

    # Data
    dataset: str = ""
    """Folder of the data set under data_root. Required; also selects the propensity constants."""
    data_manager: Literal["two-tower"] = "two-tower"
    """Data pipeline. Only two-tower (query texts and label texts) is available."""
    data_tokenization: Literal["offline", "online"] = "offline"
    """Tokenise once into files beside the texts (offline) or in every batch (online). Online costs time."""
    num_val_points: Natural = 0
    """Training points held out to choose the best model. 0 holds out none: the last model is the result."""
    select_on_test: bool = False
    """Choose the best model on the test set, as DEXML does. Only to reproduce its figures: it flatters them."""
    bootstrap_seed: Annotated[int | None, Field(ge=0, lt=2**32)] = None
    """Train on as many points drawn with replacement by this seed: a member of an ensemble. null takes each once."""
    transpose_trn_dataset: bool = False
    """Train with labels as queries. Not supported in this version."""
    expand_multilabel_dataset: bool = False
    """Had no effect in DEXML. Rejected when true."""
    only_keep_trn_labels: bool = False
    """Drop labels that have no point. Not supported in this version."""
    trn_shorty: str = ""
    """First shortlist of every training point (.npz, points x labels). Without one, neg_type shorty mines it."""
    propensity_A: Annotated[float | None, Field(gt=0)] = None
    """Propensity constant A for PSP@k, set together with propensity_B. null: from a table by the data set's name."""
    propensity_B: Annotated[float | None, Field(ge=0)] = None
    """Propensity constant B for PSP@k, set together with propensity_A. null: from a table by the data set's name."""

    # Network
    net: Literal["dist-de-all", "dist-de-hnm", "dist-clf-net", "bilstm", "attentionxml", "plt", "lightxml", "mhe"] = (
        "dist-de-all"
    )
    """Dual encoder against all labels (dist-de-all) or a pool of them (dist-de-hnm), or a classifier (dist-clf-net).
    neg_type chooses the pool. bilstm, attentionxml: label-wise attention, over all labels or down a tree of them. plt:
    a probabilistic label tree. lightxml: clusters of labels, then the labels of some."""
    tf: Annotated[str, Field(min_length=1)] = "distilbert-base-uncased"
    """Encoder: a Hub id, a local folder, or package:<python package>/<folder>. Queries and labels share it."""
    tf_pooler: Literal["cls", "mean", "pooler", "last"] = "cls"
    """How token vectors become one: first token, mean, the model's pooler, last token. Take what tf was made for."""
    tf_max_len: Count = 32
    """Tokens kept of a text, special tokens included. Longer sees more and costs more."""
    tf_token_type: str = ""
    """Tokenizer, a name like tf. Empty follows DEXML: roberta-base or bert-base-uncased if tf sounds so, else tf."""
    tf_dropout: Annotated[float | None, Field(ge=0, lt=1)] = None
    """Dropout inside the encoder. null keeps the model's own, a number replaces all of them (0 is faster)."""
    trust_remote_code: bool = False
    """Let a model from the Hub run its own Python code. Only for models whose code you have read."""
    bottleneck_dim: Natural = 0
    """Width of a linear layer after pooling. 0 has none; a small width makes the label index smaller."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the pooled embedding, before normalisation."""
    norm_embs: bool = True
    """Scale embeddings to length 1, in training and retrieval. Without it use a tau near 1."""
    tau: Positive = 0.05
    """Temperature: scores are divided by it in the loss. Smaller looks harder at the nearest negatives."""
    clf_init: Literal["label-text", "zeros", "random"] = "label-text"
    """Where the label weights of dist-clf-net start. zeros and random are for labels whose texts say nothing."""
    clf_joint: bool = False
    """Add the embedded label text to each label's weights and train both. It begins as dist-de-all, costing as much."""
    clf_lr: Annotated[float | None, Field(gt=0)] = None
    """Peak learning rate of the weights that are learnt beside the encoder, before lr_scaling. null: 10 times lr, which
    is made for pretrained weights."""

    head_epochs: Natural = 0
    """Epochs in which the weights beside the encoder learn alone, before the training, on vectors made once. They are
    cheap, and the encoder is not led astray by weights that know nothing."""
    clf_dtype: Literal["fp32", "bf16"] = "fp32"
    """How the label weights of dist-clf-net are stored. bf16 halves their memory, moments included; sums stay fp32."""

    # Loss
    loss: Literal["sim-loss"] = "sim-loss"
    """Family of losses. Only sim-loss is available; loss_criterion is the choice."""
    loss_criterion: Literal["decoupled-softmax", "topk", "softmax", "bce"] = "decoupled-softmax"
    """The loss: decoupled-softmax for all-round use, topk for the first topk_K places, softmax and bce as baselines."""
    loss_sample: bool = True
    """Keep one positive per query and step, drawn by relevance. False uses all: more signal a step, for few epochs."""
    loss_reduction: str = "mean"
    """Had no effect in DEXML. Only mean is accepted."""
    loss_weighted: bool = False
    """Multiply each positive's term by its relevance. Not for bce."""
    topk_K: Count | Annotated[str, Field(pattern="^num_pos")] = 5
    """Places that the topk loss aims at. num_pos: as many as the query has positives (needs loss_sample False)."""
    topk_alpha: Positive = 2.0
    """Slope of the soft top-k. Larger is nearer to a hard cut, with smaller gradients away from it."""
    topk_n_iter: Count = 32
    """Most solver passes for the soft top-k threshold."""
    topk_solver: Literal["halley", "bisect"] = "halley"
    """Solver of the soft top-k threshold. bisect is DEXML's: same threshold, more passes."""
    topk_cdf: Literal["logistic", "laplace"] = "logistic"
    """Curve of the soft top-k. logistic is the published one; laplace is solved exactly in one pass."""

    # Negatives
    neg_type: Literal["none", "in-batch", "shorty"] = "none"
    """Negatives of dist-de-hnm: the batch's labels (in-batch, none) or mined ones too (shorty). Else none."""
    label_side: Literal["auto", "all", "in-batch", "shortlist", "bank"] = "auto"
    """Labels that a step compares with. auto follows net and neg_type; bank (net dist-de-all) keeps an embedding of
    every label and makes few of them anew; any other value must agree with net and neg_type."""
    hard_neg_start: Natural = 1000
    """Epochs after this one use the mined shortlist. Earlier ones use the batch. 0 mines before the first."""
    hard_neg_topk: Count = 100
    """Length of the mined shortlist of a training point. It is mined anew every eval_interval epochs."""
    hard_neg_background: bool = False
    """Mine while training goes on, all but the first lists; they are used an epoch later. For one process."""
    num_neg_samples: Natural = 1
    """Labels drawn from the shortlist per query and step."""
    num_pos_samples: Count = 1
    """Positives drawn per query and step into the pool of dist-de-hnm."""

    batch_group: Natural = 0
    """Points drawn together because they are near each other: their labels are harder negatives. 0 draws each alone."""
    logq_correction: bool = False
    """Weigh each in-batch negative by one over its chance to be in the batch. They then stand for all labels."""

    # Training
    num_epochs: Count = 100
    """Passes over the training points."""
    bsz: Count = 1000
    """Queries per process and step. Lower it when the loss or the query side runs out of memory, and lr with it."""
    grad_accum: Count = 1
    """Batches whose gradients are added up before one optimiser step."""
    lr: Positive = 1e-4
    """Peak learning rate, before lr_scaling. The effective rate is printed at the start."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How lr grows with the number of processes. linear is DEXML's; prefer none and set the rate you mean."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of all steps in which lr rises. After them it falls linearly to 0."""
    optim_bundle: Literal["base"] = "base"
    """Grouping of parameters. Only base (one optimiser for all) is available."""
    optim: Literal["adamw", "adam", "sgd", "lazyadam"] = "adamw"
    """Optimiser. lazyadam leaves rows of word and label tables alone in steps that do not touch them."""
    weight_decay: NotNegative = 0.01
    """Weight decay, except on biases and layer norms. DEXML used 0.01 whatever this key said."""
    max_grad_norm: NotNegative = 0.0
    """Gradients longer than this are shortened to it. 0 never clips."""
    clip: Literal["norm", "value", "adaptive"] = "norm"
    """What max_grad_norm bounds: the gradient's length, each number in it (value), or nothing, the bound following the
    lengths of the last steps (adaptive, as AttentionXML has it)."""

    # Evaluation
    eval_interval: Count = 5
    """Epochs between evaluations. The last epoch is always evaluated."""
    eval_topk: Count = 100
    """Predictions kept per point. Metrics at larger k are left out."""
    eval_bsz: Natural = 0
    """Texts encoded at a time in evaluation. 0 is twice bsz."""
    track_metric: Annotated[str, Field(pattern=r"^(P|nDCG|PSP|R|MRR)@[1-9][0-9]*$")] = "nDCG@5"
    """Metric that chooses the best model, such as P@1 or PSP@5."""
    early_stop: Natural = 0
    """Evaluations without a better track_metric before training stops. 0 never stops it."""
    predict_mode: Literal["labels", "knn", "mix"] = "labels"
    """How the test is predicted: by nearest labels, by labels of the nearest training points (knn), or both (mix)."""
    knn_k: Natural = 0
    """Nearest training points that vote for their labels. 0 chooses on the validation points (without any: 20)."""
    knn_weight: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Share of the vote in mix. null chooses on the validation points (without any: 0.25)."""
    knn_tau: Annotated[float | None, Field(gt=0)] = None
    """Temperature of the vote: smaller listens to the nearest point alone. null: tau."""

    # Speed and memory: results stay the same, to rounding
    amp_encode: bool = True
    """Run the encoder in half precision where the processor has it. Scores and losses are always fp32."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format inside the encoder. auto is fp32 if amp_encode is False, else bf16 where the processor has it."""
    gc_bsz: Count = 1000
    """Labels encoded at a time with gradients. Lower this first when memory runs out; steps get a little slower."""
    gc_bsz_x: Natural = 0
    """Queries encoded at a time with gradients. 0 keeps the whole batch; set it when long queries fill memory."""
    token_budget: Count = 16384
    """Most tokens encoded at a time. Lower it when long texts run out of memory."""
    memory_budget: Annotated[float, Field(ge=0)] = 0.0
    """GB of activations kept from encoding to gradient; what is over is encoded twice. 0 takes a quarter of the free
    memory."""
    tile_rows: Natural = 0
    """Queries in one tile of the loss. 0 fits the tile to 4M scores."""
    tile_cols: Count = 8192
    """Labels in one tile of the loss. Lower it when the loss runs out of memory."""
    grad_checkpointing: bool = False
    """Recompute the encoder's activations in the backward pass. About half the memory for a third more time."""
    compile: bool = False
    """Compile the encoder with torch.compile. Minutes at the start, faster steps on a GPU."""
    profile: bool = False
    """Tell with every log line where the seconds of a step go, such as encoding, loss, optimiser and waiting."""
    num_threads: Natural = 0
    """CPU threads per process. 0 shares the cores among the processes of this machine."""
    num_processes: Natural = 0
    """Processes that must have been started. 0 takes any number; set it to notice a launch that lost some."""
