"""Are the tests sharp? Plausible mistakes are put into the code, one at a time, and the tests must notice each.

    python tests/mutants.py [module …]        all modules, or those whose path holds one of the words

Each mutant is one change of text in a scratch copy. The test files named for its module run on it until the first failure
("killed"); a mutant with which all of them pass has "survived": write the test that is missing. A text that is no longer
found once, and only once, is an error: bring the table up to date. A child process is forked for each mutant, after torch
was imported, so one takes seconds. ``make mutants`` runs all of them; it is too slow for CI.
"""

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 300  # seconds for the tests of one mutant; a mutant that hangs is noticed, too
PRELOADED = ("torch", "pandas", "pydantic", "matplotlib.pyplot", "scipy.stats", "filelock", "pytest", "typer")
LINKED = ("data", "notebooks", "results", "figures", "docs")

#: file → (its test files, [(text, mutated text), …])
MUTANTS = {
    "_arguments.py": (["test_saliency.py"], [
        ("if isinstance(function, type) or not callable(function):", "if not callable(function):"),
        ("inspect.signature(function).bind(None, None)", "inspect.signature(function)"),
        ("if not isinstance(generator, torch.Generator):", "if False:"),
    ]),
    "_evaluation.py": (["test_saliency.py"], [
        ("        if function is Tensor.__deepcopy__ and not args[0].is_leaf:", "        if False:"),
        ("                module.training = False\n", "                pass\n"),
        ("                        buffer.copy_(content)", "                        pass"),
        ("                    setattr(module, name, buffer)", "                    pass"),
        ('module.training = batch_norm == "train"', "module.training = False"),
        ("handles.append(module.register_forward_pre_hook(set_mode))", "pass"),
        ("                handle.remove()\n", "                pass\n"),
        ("                parameter.grad = None\n", "                pass\n"),
        ("            parameter._backward_hooks = None\n", "            pass\n"),
        ("            setattr(module, attribute, OrderedDict())", "            pass"),
        ("        if function in DROPOUTS:", "        if False:"),
        ('bound.arguments["dropout_p"] = 0.0', "pass"),
        ("        if function is F.scaled_dot_product_attention:", "        if False:"),
        ("elif function is Tensor.register_hook:", "elif False:"),
        ("        torch.default_generator.manual_seed(seed)\n", "        pass\n"),
        ("    with torch.random.fork_rng(devices=[device] if on_gpu else []), _AsInEvaluation():", "    with _AsInEvaluation():"),
    ]),
    "_joined.py": (["test_saliency.py"], [
        ("_multiple(there, other.slopes()) / _multiple(here, self.slopes())", "_multiple(there, other.slopes())"),
        ("_multiple(there, other.slopes()) / _multiple(here, self.slopes())", "1.0"),
        ("factor <= 0 or rest > 1e-6 * factor**2 * square", "factor <= 0"),
        ("torch.allclose(value, self.loss(self.outputs, self.targets), rtol=1e-3)", "True"),
    ]),
    "scoring.py": (["test_saliency.py"], [
        ("torch._foreach_lerp(mean, slopes, size / total)", "torch._foreach_lerp(mean, slopes, 0.5)"),
        ("torch._foreach_lerp(mean, slopes, size / total)", "slopes"),
        ("return self.copy() if self._is_narrow() else self", "return self"),
        ("size = int((targets != IGNORED).sum())", "pass"),
        ("if low < 0 or high >= classes:", "if low < 0 or high > classes:"),
        ("elif first is None or not first.has_slope():", "elif first is None:"),
        ("yield value, float(weight) if weighted else 1", "yield value, 1"),
        ("        self.model.train()\n", "        pass\n"),
    ]),
    "_driver.py": (["test_saliency.py"], [
        ("    if unknown:\n", "    if False:\n"),
        ("score.abs().sum().item()", "score.sum().item()"),
        ("to_prune(model, biases=biases, where=where)", "to_prune(model, where=where)"),
    ]),
    "__init__.py": (["test_saliency.py", "test_successors.py"], [
        ("        share = 1 - keep / total", "        pass"),
        ("parameter.default in (None, inspect.Parameter.empty)", "True"),
        ("check_arguments(model, loss, closure, where, batch_norm)", "pass"),
    ]),
    "saliency.py": (["test_saliency.py"], [
        ("(slope * weights[name]).abs_()", "slope.abs()"),
        ("(slope * weights[name]).abs_()", "(slope + weights[name]).abs_()"),
        ("(slope * weights[name]).abs_()", "(slope * weights[name])"),
        ("slope.clone()", "slope.abs()"),
        ("{name: weight.abs() for", "{name: weight.clone() for"),
        ("weight.shape, generator=generator, dtype", "weight.shape, dtype"),
        (', dtype=torch.float32, device="cpu")', ")"),
    ]),
    "successors.py": (["test_successors.py"], [
        ("{name: product * weights[name] for", "{name: -product * weights[name] for"),
        ("softened.hessian_times(softened.gradient())", "softened.gradient()"),
        ("objective.repeatable(temperature=temperature)", "objective.repeatable()"),
        ("            parameter.abs_()\n", "            pass\n"),
        ("        if is_norm(module):  #", "        if False:  #"),
        ("objective.copy(torch.float64)", "objective.copy()"),
        ("torch.ones_like(inputs[:1], dtype=torch.float64)", "inputs[:1].double()"),
        ("scored = dense if come_back else weights", "scored = weights"),
        ("scored = dense if come_back else weights", "scored = dense"),
        ("            weight.copy_(dense[name] * masks[name])", "            pass"),
        ("return 1 - (1 - sparsity) ** share", "return sparsity * share"),
        ("_by_then(sparsity, done / rounds)", "_by_then(sparsity, (done + 1) / rounds)"),
        ("        if not come_back:", "        if False:"),
        ("        if not come_back:", "        if True:"),
        ("            return scores  # nothing", "            pass  # nothing"),
        ("score + 2.0 * (places < count)", "score"),
    ]),
    "_flow.py": (["test_successors.py"], [
        ("yield heads.before(outputs).sum(), 1", "yield outputs.sum(), 1"),
        ("logits = tensor if is_head else logits", "logits = tensor"),
        ("            if lowest < -1e-9 * largest:  #", "            if False:  #"),
    ]),
    "densities.py": (["test_ladder.py", "test_successors.py"], [
        ("sum(map(sum, shapes)) / sum(map(math.prod, shapes))", "1 / sum(map(math.prod, shapes))"),
        ("        shared &= density <= 1\n        density[~shared] = 1", "        density = density.clip(max=1)\n        break"),
        ("[: kept - counts.sum()]] += 1", "[:0]] += 1"),
        ("last = max(last, kept - sum(sizes[:-1]))", "pass"),
        ("depth**2 + depth", "depth**2"),
        ("        places[order] = torch.arange(size, device=\"cpu\")", "        places[:] = torch.arange(size, device=\"cpu\")"),
        ("name if holds_others or not module else module", "module"),
        ("min(1 - count / size_of(layer), ALMOST_ALL)", "1 - count / size_of(layer)"),
    ]),
    "masking.py": (["test_masking.py", "test_saliency.py"], [
        ("kept = flat > lowest_kept", "kept = flat >= lowest_kept"),
        ("kept[ties[: kappa - np.count_nonzero(kept)]] = True", "kept[ties[-(kappa - np.count_nonzero(kept)) :]] = True"),
        ("{name: -score for name, score in scores.items()}", "dict(scores)"),
        ("return common / kept, chance / kept", "return common / kept, common / kept"),
        ("not is_bias(name) and not mask.any()", "not mask.any()"),
        ("reached = (signal > 0).to(signal.dtype)", "reached = signal"),
        ("mask & (on_path[weight] > 0)", "mask | (on_path[weight] > 0)"),
        ("return nn.functional.avg_pool2d(*args, **shared)", "return function(*args, **options)"),
        ("if not same:\n", "if False:\n"),
    ]),
    "pool.py": (["test_masking.py", "test_saliency.py"], [
        ("return round(total * (1 - sparsity))", "return int(total * (1 - sparsity))"),
        ("return round(total * (1 - sparsity))", "return round(total * sparsity)"),
        ("if is_norm(module) or isinstance(module, (nn.Embedding, nn.EmbeddingBag)):", "if False:"),
        ("if role == \"bias\" and not biases else role", "if False else role"),
    ]),
    "ladder.py": (["test_ladder.py"], [
        ("mask.flatten()[torch.randperm(mask.numel(), generator=generator).to(mask.device)]", "mask.flatten()"),
        ("matrix = _permuted(matrix, 1, generator)", "matrix = _permuted(matrix, 0, generator)"),
        ("matrix = _permuted(matrix, 0, generator)", "matrix = _permuted(matrix, 1, generator)"),
        ("kernels.transpose(0, 1).flatten(1), 1, generator)", "kernels.transpose(0, 1).flatten(1), 0, generator)"),
        ("elif positions or kernels.shape[2] == 1:", "elif True:"),
        ("_rewired(_permuted(matrix.view_as(kernels), 2, generator).flatten(1), generator)", "_rewired(matrix, generator)"),
        ("edges.tolist(), directed=True)", "edges.tolist())"),
        ("        return ~_rewired(~matrix, generator)\n", "        pass\n"),
        ("        graph.rewire(TRIALS * len(edges))", "        pass"),
        ("        graph.rewire(TRIALS * len(edges))", "        graph.rewire(len(edges) // 3)"),
        ("        igraph.set_random_number_generator(random)  #", "        pass  #"),
        ("    igraph.set_random_number_generator(random.Random(seed))\n", ""),
        ("view(units, -1)[order].flatten()", "view(units, -1)[torch.randperm(units)].flatten()"),
        ("view(units, -1)[order].flatten()", "view(-1, units)[:, order].flatten()"),
        ("(f\"{name}.bias\", 0, order), ", ""),
        ("if (after - before).abs().max() > 1e-6 * before.abs().max():", "if False:"),
        ("return _moved(masks, moves)", "return dict(masks)"),
    ]),
    "controls.py": (["test_controls.py"], [
        ("if last_of_row or last_of_column:", "if last_of_row:"),
        ("if last_of_row or last_of_column:", "if last_of_column:"),
        ("walked = _walked(kernels[rows][:, columns], generator)", "walked = kernels[rows][:, columns]"),
        ("trials = math.ceil(MOVES *", "trials = math.ceil(0.2 *"),
        ("for name in weights[:-1]:", "for name in weights:"),
        ("live = shuffled[name].flatten(1).any(1).nonzero().flatten()", "live = torch.arange(len(shuffled[name]))"),
        ("shuffled[moved][live[order]]", "shuffled[moved][live]"),
        ("for moved in (name, bias):", "for moved in (name,):"),
        ("shuffle(masks, generator, keep=\"units\")", "shuffle(masks, generator, keep=\"inputs\")"),
        ("fresh[name].detach().abs()", "fresh[name].detach().square()"),
        ("return gradient_twin(rank_one(gradients), fresh, generator)", "return gradient_twin(gradients, fresh, generator)"),
        ("factors[order].view_as(size)", "factors.view_as(size)"),
        ("/ total).sqrt()", "/ total)"),
        ("    for _ in range(100):\n        middle", "    for _ in range(3):\n        middle"),
        ("if not 0 < keep < possible:", "if False:"),
    ]),
    "export.py": (["test_masking.py", "test_saliency.py"], [
        ("parameter.masked_fill_(~mask.to(parameter.device), 0)", "parameter.masked_fill_(mask.to(parameter.device), 0)"),
        ("pruned, trained = ~mask", "pruned, trained = mask"),
        ("parameter.grad.masked_fill_(pruned", "parameter.grad.masked_fill_(~pruned"),
    ]),
    "training.py": (["test_training.py", "test_stacking.py", "test_checkpoints.py"], [
        ("        apply_(model, masks)\n", ""),
        ("        mask_gradients(networks.masked)\n", ""),
        ("(losses.sum() / recipe.batch_size).backward()", "(losses.sum() / recipe.batch_size / count).backward()"),
        ("group[\"lr\"] = learning_rate(step, recipe)", "group[\"lr\"] = learning_rate(step + 1, recipe)"),
        ("            sums.zero_()\n", ""),
        ("            networks.train()\n        if len(diverged)", "        if len(diverged)"),
        ("return [evaluate(self.template, self.data[0].test)]", "return [evaluate(self.template, self.data[0].train)]"),
        ("best = min(test.error for test in self.tests)", "best = self.tests[-1].error"),
        ("Outcome(self.tests[-1].error, best,", "Outcome(best, best,"),
        ("            checkpoint.after(step)", "            checkpoint.after(step - 1)"),
        ("batches(len(images), recipe, seeds, device), done, None)", "batches(len(images), recipe, seeds, device), 0, None)"),
        ("views = [augment(view, recipe.augment, generator) for", "views = [augment(view, recipe.augment, generators[0]) for"),
        ("enabled=recipe.precision == \"bfloat16\"", "enabled=False"),
        ("return range(steps - (TESTS - 1) * interval,", "return range(steps - TESTS * interval,"),
        ("if len(diverged) == count:", "if diverged:"),
    ]),
    "recipe.py": (["test_training.py"], [
        ("(others, 0.0)", "(others, recipe.weight_decay)"),
        ("(decayed, recipe.weight_decay)", "(decayed, 0.0)"),
        ("lr=recipe.lr, momentum=recipe.momentum, fused=True", "lr=recipe.lr, fused=True"),
        ("(done // recipe.decay_every)", "(step // recipe.decay_every)"),
        ("done, warmup = step - 1, 0.2 * recipe.steps", "done, warmup = step, 0.2 * recipe.steps"),
        ("recipe.lr * (0.04 + 0.96 *", "recipe.lr * (0.96 *"),
        ("generators = [torch.Generator().manual_seed(seed) for seed", "generators = [torch.Generator().manual_seed(0) for seed"),
        ("if step % per_epoch == 0:", "if step == 0:"),
        ("SeedSequence([seed, 1])", "SeedSequence([0, 1])"),
        ("            if value not in choices:", "            if False:"),
        ("if type(value) is not int or value < 1:", "if value < 1:"),
        ("object.__setattr__(self, name, float(value))", "pass"),
    ]),
    "study/stacking.py": (["test_stacking.py"], [
        ("        for model, own in zip(models, masks):\n            apply_(model, own)\n", "        for model in models:\n"),
        ("rows, labels = self.rows[self.number, index], self.labels[self.number, index]",
         "rows, labels = self.rows[self.number, index], self.labels[self.number * 0, index]"),
        ("rows, labels = self.rows[self.number, index], self.labels", "rows, labels = self.rows[self.number * 0, index], self.labels"),
        ("zip(self.source, rows)]", "zip([0] * len(rows), rows)]"),
        ("                    row.copy_(own[name])", "                    row.copy_(masks[0][name])"),
        ("            self._unstack()\n            return", "            return"),
        ("            model.eval()", "            pass"),
        ("if other != first:", "if False:"),
    ]),
    "study/checkpoints.py": (["test_checkpoints.py"], [
        ("            tensor.copy_(found[\"tensors\"][name])", "            pass"),
        ("        state.optimiser.load_state_dict(found[\"optimiser\"])\n", ""),
        ("            generator.set_state(own)", "            pass"),
        ("if known != self.fingerprint:", "if False:"),
        ("        return found[\"step\"]", "        return found[\"step\"] + 1"),
        ("            curve.train_loss.extend(train_loss)\n", ""),
        ("        if self.ours:\n            self.path.unlink", "        if True:\n            self.path.unlink"),
        ("late = stopping or (", "late = ("),
        ("            torch.save(content, unfinished)\n            os.replace(unfinished, self.path)\n", "            torch.save(content, self.path)\n"),
    ]),
    "study/runs.py": (["test_runs.py"], [
        ("        elif current != default:", "        else:"),
        ("sort_keys=True).encode()).hexdigest()[:12]", "sort_keys=False).encode()).hexdigest()[:12]"),
        ("        if dataclasses.is_dataclass(current):", "        if one.name == \"seed\":\n            continue\n        if dataclasses.is_dataclass(current):"),
        ("np.random.SeedSequence(self.seed)", "np.random.SeedSequence(0)"),
        ("SeedSequence(self.seed).spawn", "SeedSequence([self.seed, len(self.criterion)]).spawn"),
        ("            seeds[\"scoring_init\"] = seeds[\"training_init\"]", "            seeds[\"training_init\"] = seeds[\"scoring_init\"]"),
        ("{name: int(child.generate_state(1)[0]) for name, child", "{name: self.seed for name, child"),
        ("self.train_size is None and self.test_size is None", "self.test_size is None"),
        ("self.train_size is None and self.test_size is None", "self.train_size is None"),
        ("if recipe == self.recipe)", "if recipe.steps == self.recipe.steps)"),
        ("\"overnight\": \"converged\"}", "\"overnight\": \"paper\"}"),
        ("seed=seed) for seed in range", "seed=seed + 1) for seed in range"),
        ("same_draw = criterion == \"magnitude\"", "same_draw = False"),
        ("ablation=ablation,", "ablation=\"none\","),
        ("pretrained=pretrained\n", "pretrained=False\n"),
        ("if self.pretrained and not (", "if False and not ("),
        ("if self.criterion in (*densities.COUNTS, \"synflow\", \"iterative-snip\") and", "if False and"),
        ("(self.criterion == \"dense\") != (self.sparsity == 0)", "False"),
        ("if self.same_draw and self.scoring_init", "if False and self.scoring_init"),
        ("scoring_batch: PositiveInt | None = 100", "scoring_batch: int | None = 100"),
        ("scoring_batch: PositiveInt | None = 100", "scoring_batch: PositiveInt | None = 128"),
        ("            build(num_classes=classes, image_size=side, **options)", "            pass"),
        ("if kind in (int, float) and value <= 0:", "if False:"),
        ("@dataclass(frozen=True, config=STRICT)", "@dataclass(config=STRICT)"),
    ]),
    "study/experiment.py": (["test_experiment.py"], [
        ("build(run, run.training_init, seeds[\"training_init\"], device)",
         "build(run, run.training_init, seeds[\"scoring_init\"], device)"),
        ("build(run, run.training_init, seeds", "build(run, run.scoring_init, seeds"),
        ("seed = run.seeds()[\"scoring_init\"]", "seed = run.seeds()[\"training_init\"]"),
        ("_scored(run, device) if run.same_draw else", "_scored(run, device) if False else"),
        ("SeedSequence([seed, 2])", "SeedSequence([2])"),
        ("(drawn, len(bias), len(bias), generator)", "(drawn, 1, 1, generator)"),
        ("    if run.pixels == \"standardised\":", "    if True:"),
        ("images = _with_pixels(run, other).train", "images = other.train"),
        ("if run.layer_counts != \"own\":", "if False:"),
        ("twin(scores, fresh, generator)", "twin(scores, dict(model.named_parameters()), generator)"),
        ("return run.data, run.pixels, run.model,", "return run.data, run.model,"),
        ("model = build(run, run.scoring_init,", "model = build(run, run.training_init,"),
        ("        biases=run.biases,\n        batch_norm", "        biases=True,\n        batch_norm"),
        ("batch_norm=run.batch_norm,", "batch_norm=\"eval\","),
        ("data.sample(images, run.scoring_batch, generator, run.scoring_sample)", "images[: run.scoring_batch]"),
        ("data.sample(images, run.scoring_batch, generator, run.scoring_sample)", "data.sample(images, run.scoring_batch, generator)"),
        ("data.sample(images, run.scoring_batch, generator,", "data.sample(images, min(100, len(images)), generator,"),
        ("inputs = data.augment(inputs, run.scoring_augment, generator)", "pass"),
        ("if run.scoring_labels == \"random\":", "if False:"),
        ("if run.scoring_labels == \"random\":", "if run.train_labels == \"random\":"),
        ("if run.train_labels == \"random\":", "if False:"),
        ("dataset = dataclasses.replace(dataset, train=shuffled)",
         "dataset = dataclasses.replace(dataset, train=shuffled, test=data.shuffle_labels(dataset.test, torch.Generator()))"),
        ("images = data.shuffle_labels(images, torch.Generator().manual_seed(seeds[\"labels\"]))",
         "images = data.shuffle_labels(images, torch.Generator().manual_seed(seeds[\"batch\"]))"),
        ("if run.scoring_data == NOISE:", "if False and run.scoring_data == NOISE:"),
        ("        if run.scoring_data:\n", "        if False:\n"),
        ("size = run.scoring_batch or len(images)", "size = run.scoring_batch or 100"),
        ("size = len(labels) if run.batch_norm == \"train\" else SCORED_AT_ONCE", "size = SCORED_AT_ONCE"),
        ("size = len(labels) if run.batch_norm == \"train\" else SCORED_AT_ONCE", "size = len(labels)"),
        ("(masking.keep_lowest if run.ablation == \"invert\" else masking.keep_top)", "masking.keep_top"),
        ("if run.ablation in SHUFFLES:", "if False:"),
        ("if run.ablation == \"shuffle-channels\":", "if False:"),
        ("keep=\"units\", positions=False", "keep=\"units\""),
        ("sparsity = run.sparsity\n", "sparsity = 0.9\n"),
        ("        test_size=run.test_size,\n", ""),
        ("split_seed=run.seeds()[\"split\"],", "split_seed=0,"),
        ("seed=seed, image_size=side, **run.options)", "seed=seed, image_size=side)"),
        ("network, own_masks, dataset, run.recipe, seed=run.seeds()[\"order\"]", "network, own_masks, dataset, run.recipe, seed=0"),
        ("network, own_masks, dataset, run.recipe,", "network, {}, dataset, run.recipe,"),
        ("    return masking.compact(model, masks, inputs, convolutions=False)", "    return masking.compact(model, masks, inputs, convolutions=False)[0], {}"),
        ("    return _record(run, model, masks, dataset, outcome, {\"seconds\"", "    return _record(run, network, own_masks, dataset, outcome, {\"seconds\""),
        ("if not masks or run.model not in LENETS:", "if not masks:"),
        ("seeds = [run.seeds()[\"order\"] for run in prepared]", "seeds = [runs[0].seeds()[\"order\"] for run in prepared]"),
        ("_prepare(run, loaded[run.seeds()[\"split\"]], device)", "_prepare(run, next(iter(loaded.values())), device)"),
        ("run.model, options, run.recipe,", "run.model, options,"),
        ("run.recipe, run.train_size, run.test_size", "run.recipe, run.train_size"),
        ("return {\"resumed\": True} if", "return {} if"),
        ("generator = torch.Generator().manual_seed(seeds[\"criterion\"])", "generator = torch.Generator().manual_seed(0)"),
        ("generator = torch.Generator().manual_seed(seeds[\"ablation\"])", "generator = torch.Generator().manual_seed(0)"),
        ("if run.ablation == \"relabel\":", "if False:"),
        ("run.ablation.removeprefix(\"shuffle\").lstrip(\"-\") or \"layers\"", "\"layers\""),
        ("_pretrained(run, device) if run.pretrained else model, dataset", "model, dataset"),
        ("    training.train(model, {}, dataset, run.recipe, seed=run.seeds()[\"order\"])\n    return model",
         "    training.train(model, {}, load(run, device), run.recipe, seed=run.seeds()[\"order\"])\n    return model"),
        ("    training.train(model, {}, dataset, run.recipe, seed=run.seeds()[\"order\"])\n    return model", "    return model"),
        ("run.sparsity, generator, biases=run.biases)", "run.sparsity, generator)"),
        ("        outcome = error\n", "        raise\n"),
    ]),
    "study/records.py": (["test_records.py"], [
        ("            _lock(stream)\n            end =", "            end ="),
        ("                if stream.read(1) != b\"\\n\":\n", "                if False:\n"),
        ("                stream.truncate(end)  #", "                pass  #"),
        ("            except BaseException:  # Ctrl-C", "            except OSError:  # Ctrl-C"),
        ("            stream.seek(start)\n            content = stream.read()\n    lines", "    lines"),
        ("first = records.setdefault(record.run.id, record)", "first = records[record.run.id] = record"),
        ("if _error(first) != _error(record):", "if False:"),
        ("seen[path] = start + len(content), number", "seen[path] = len(content), number"),
        ("number + content.count(b\"\\n\"), status", "1, status"),
        ("number + content.count(b\"\\n\"), status", "number, status"),
        ("            number += line.endswith(b\"\\n\")", "            number += 1"),
        (" or status.st_ino != inode", ""),
        ("return TypeAdapter(cls).validate_json(line)", "return TypeAdapter(cls).validate_json(line, strict=False)"),
        ("        if self.id != self.run.id:", "        if False:"),
        ("        if (outcome is None) != bool(self.diverged):", "        if False:"),
        ("if bool(self.kept) != has_masks or not in_range:", "if not in_range:"),
        ("if bool(self.kept) != has_masks or not in_range:", "if bool(self.kept) != has_masks:"),
        ("if kept != (masking.kept_count(total, sparsity) if self.kept else 0):", "if False:"),
        ("0 <= best <= last <= 100", "best <= last <= 100"),
        ("0 <= best <= last <= 100", "0 <= best <= last"),
        ("not 0 <= self.effective <= kept", "False"),
        ("f\"{point:.{DIGITS}g}\"", "f\"{point:.3g}\""),
        ("return {\"train_error\": []} | outcome", "return outcome | {\"train_error\": []}"),
        ("= 1 - record.effective / total", "= record.effective / total"),
        ("if not kept and not masking.is_bias(name):", "if not kept:"),
        ("\"training\": run.training", "\"training\": \"paper\""),
        ("row[name] = outcome.get(name, math.nan)", "row[name] = outcome.get(name, 0.0)"),
    ]),
    "study/worker.py": (["test_worker.py"], [
        ("time.monotonic() + seconds", "seconds"),
        ("    if checkpoints.stopping or (seconds is not None and seconds <= 0):\n        return None\n", ""),
        ("checkpoints.Checkpoint(path, deadline)", "checkpoints.Checkpoint(path)"),
        ("    if code != provenance.code():", "    if False:"),
        ("        os.replace(checkpoint.path, stale)\n", "        os.remove(checkpoint.path)\n"),
        ("        os.replace(checkpoint.path, stale)\n", ""),
        ("        with executors.one_thread():\n", "        if True:\n"),
        ("        executors.busy.clear()", "        pass"),
        ("        path = paths.temporary() / Path(path).name", "        pass"),
    ]),
    "study/scheduler.py": (["test_scheduler.py"], [
        ("                self.queue.append(busy)", "                pass"),
        ("        lock = self.locks.pop(run, None)", "        lock = None"),
        ("            Path(lock.lock_file).unlink(missing_ok=True)\n", ""),
        ("            try:\n                lock.acquire()\n            except Timeout:\n                return False\n", ""),
        ("                    self.recorded.setdefault(name, record)", "                    pass"),
        ("        self.queue.extend(groups)", "        self.queue.extend(reversed(groups))"),
        ("                self.failed[group[0]] = error", "                self.recorded[group[0].id] = None"),
        ("                self.failed[group[0]] = error", "                pass"),
        ("return deadline is not None and time.monotonic() >= deadline", "return False"),
        ("return not (self.died or self.stuck or self.full or _passed(deadline))", "return not (self.died or self.stuck or self.full)"),
        ("return not (self.died or self.stuck or self.full or _passed(deadline))", "return not (self.stuck or self.full or _passed(deadline))"),
        ("None if deadline is None else deadline - time.monotonic()\n            future", "deadline\n            future"),
        ("lead = LEAD if deadline is None else 0", "lead = LEAD"),
        ("    todo = reachable([run for run in files if run.id not in recorded])", "    todo = reachable(list(files))"),
        ("    runs = list({run.id: run for run in runs}.values())\n", "    runs = list(runs)\n"),
        ("        except sources.DamagedError:\n            raise\n", ""),
        ("{run.data, run.scoring_data} & set(SHAPES)", "{run.data} & set(SHAPES)"),
        ("            self._release(run)\n            self.unwritten.popleft()", "            self.unwritten.popleft()"),
        ("                self.full = error\n                return\n", "                self.full = error\n                self.unwritten.popleft()\n                return\n"),
        ("            self.full = None\n", ""),
        ("return Path(folder) / \"checkpoints\" / f\"{run.id}.pt\"", "return Path(folder) / \"checkpoints\" / \"run.pt\""),
        ("                self.queue.extend([run] for run in group)", "                pass"),
        ("if path.suffix != \".jsonl\"}", "if False}"),
        ("records.append(self.files[run], record)", "records.append(next(iter(self.files.values())), record)"),
        ("        if path.stem in recorded:", "        if True:"),
        ("    delete_checkpoints(folder, recorded)\n", ""),
        ("isinstance(minutes, int | float) and minutes >= 0", "isinstance(minutes, int | float)"),
    ]),
    "study/paths.py": (["test_study_paths.py"], [
        ("    return checkout if _is_project(checkout) else None", "    return None"),
        ("    if not around.st_mode & stat.S_IWOTH:\n        return True\n    if", "    if"),
        ("    if around.st_mode & stat.S_ISVTX:", "    if False:"),
        (".st_uid in (os.getuid(), around.st_uid)", ".st_uid in (os.getuid(), around.st_uid) or True"),
        ("Path(text).expanduser()", "Path(text)"),
        ("os.environ.get(DATA_VARIABLE, \"\").strip()", "os.environ.get(DATA_VARIABLE, \"\")"),
        (" and not by_a_command:", ":"),
        ("if profile in COMMITTED and ", "if "),
        ("        unfinished.unlink(missing_ok=True)", "        pass"),
        ("write_text(text, encoding=\"utf-8\")", "write_text(text)"),
    ]),
    "study/executors.py": (["test_executors.py", "test_scheduler.py"], [
        ("                torch.set_num_threads(_threads[\"before\"])", "                pass"),
        ("            if not _threads[\"users\"]:\n                torch.set", "            if True:\n                torch.set"),
        ("        if len(caught) > 1:", "        if len(caught) > 2:"),
        ("            signal.signal(number, handler)", "            pass"),
        ("not in (signal.SIG_IGN, None):", "not in (None,):"),
        ("if threading.current_thread() is threading.main_thread():", "if True:"),
        ("if not future.cancel()]", "if True]"),
        ("        checkpoints.stopping = False\n", "        pass\n"),
        ("checkpoints.stopping = isinstance(executor, ThreadPoolExecutor)", "pass"),
        ("if of_machine[\"code\"] != expected[\"code\"]:", "if False:"),
        ("            if of_machine[name] != version:", "            if False:"),
        ("    if not on_gpu():\n        return cores", "    if True:\n        return cores"),
        ("max(1, min(cores // 2", "max(0, min(cores // 2"),
        ("min(cores // 2, ", "min(cores, "),
        (", GPU_WORKERS))", "))"),
        ("int(_gpu_memory() // GPU_SHARE), ", ""),
    ]),
    "study/progress.py": (["test_commands.py"], [
        ("            on_gpu += 1\n        else:\n", "            on_gpu += 1\n        if True:\n"),
        ('.startswith("NVIDIA")', '.startswith("AMD")'),
        ("if on_gpu else", "if not on_gpu else"),
    ]),
    "study/estimate.py": (["test_executors.py"], [
        (" and not record.provenance.get(\"resumed\")", ""),
        (" and record.provenance.get(\"device\") == machine", ""),
        ("whole = record.outcome and not", "whole = not"),
        ("np.median(values)", "np.mean(values)"),
        ("return run.data, run.model, str(run.options), run.recipe, run.test_size", "return run.data, run.model, str(run.options), run.recipe"),
        ("return run.data, run.model, str(run.options), run.recipe, run.test_size", "return run.data, run.model, str(run.options), run.test_size"),
        ("training.TESTS * (run.test_size or 10_000) * per_image", "(run.test_size or 10_000) * per_image"),
        ("run.recipe.steps * spent / steps", "spent / steps"),
    ]),
    "study/provenance.py": (["test_executors.py"], [
        ("str(path.relative_to(PACKAGE)).encode() + path.read_bytes()", "path.read_bytes()"),
        ("str(path.relative_to(PACKAGE)).encode() + path.read_bytes()", "str(path.relative_to(PACKAGE)).encode()"),
        ("PACKAGE.rglob(\"*.py\")", "PACKAGE.glob(\"*.py\")"),
    ]),
    "study/notebooks.py": (["test_commands.py"], [
        ("        if page not in pages:", "        if False:"),
        ("        if key not in defaults:", "        if False:"),
        ("        if not _fits(value, defaults[key]):", "        if False:"),
        ("    if type(default) is float and type(value) is int:\n        return True\n", ""),
        ("    if profile not in PROFILES:", "    if False:"),
        ("_defaults(name) | parameters(name, profile)", "_defaults(name)"),
        ("    if not pages:", "    if pages:"),
    ]),
    "study/__main__.py": (["test_commands.py"], [
        ("not (math.isfinite(budget) and budget >= 0)", "not budget >= 0"),
        ("time.monotonic() + 60 * budget", "None"),
        ("run.id not in recorded and run not in files for", "run.id not in recorded for"),
        ("files.setdefault(run, results / f\"{name}.jsonl\")", "files[run] = results / f\"{name}.jsonl\""),
        ("    notebooks.names()  # where", "    pass  # where"),
        ("key=lambda run: (run.seed, seconds[run])", "key=lambda run: (seconds[run], run.seed)"),
        ("ordered = sorted(todo, key=lambda run: (run.seed, seconds[run]))", "ordered = todo"),
        ("raise SystemExit(app(standalone_mode=False))", "app(standalone_mode=False)"),
        ("    if not files:\n        raise ValueError(f", "    if False:\n        raise ValueError(f"),
        (" or isinstance(error, sources.DamagedError)", ""),
        ("    if isinstance(error, ModuleNotFoundError) and", "    if False and"),
        ("stream.reconfigure(errors=\"replace\")", "pass"),
        ("signal.signal(signal.SIGTERM, _interrupted)", "pass"),
        ("isinstance(error, DataError | ValueError | RuntimeError | OSError)", "True"),
    ]),
}  # fmt: skip


def scratch_copy(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("snipkit", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.name in LINKED or path.is_file():
            (folder / path.name).symlink_to(path)


def survives(folder: Path, files: list[str], log: Path) -> bool:
    """Whether all tests pass on the copy in this folder; RuntimeError if they could not even be run."""
    child = os.fork()
    if not child:
        os.setsid()
        with open(log, "w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        os.chdir(folder)
        sys.path[:0] = [str(folder), str(folder / "tests")]
        code = 99
        try:
            import pytest

            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *(f"tests/{file}" for file in files)])
            import snipkit

            assert snipkit.__file__.startswith(str(folder)), snipkit.__file__
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        time.sleep(0.05)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False
    code = os.waitstatus_to_exitcode(status)
    # A mutant may also break what every test needs (a fixture, an import of the module): then it is noticed, too.
    if code not in (0, 1, 2) and code >= 0:
        raise RuntimeError(f"pytest ended with {code}:\n{log.read_text()[-2000:]}")
    return code == 0


def main(words: list[str]) -> int:
    wanted = {file: row for file, row in MUTANTS.items() if not words or any(word in file for word in words)}
    sources = {file: (ROOT / "snipkit" / file).read_text() for file in wanted}
    lost = [(file, old) for file, (_, rows) in wanted.items() for old, _ in rows if sources[file].count(old) != 1]
    for file, old in lost:
        print(f"{file}: found {sources[file].count(old)} times: {old!r}")
    if lost or not wanted:
        print(f"error: {len(lost)} texts of the table are not in the code exactly once" if lost else "error: no such module")
        return 2
    for name in PRELOADED:
        importlib.import_module(name)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    scores = {}
    with tempfile.TemporaryDirectory(prefix="snipkit-mutants-") as scratch:
        copy, log = Path(scratch, "copy"), Path(scratch, "log")
        copy.mkdir()
        scratch_copy(copy)
        for files in sorted({tuple(row[0]) for row in wanted.values()}):
            if not survives(copy, list(files), log):
                print(log.read_text()[-3000:], f"\nerror: {', '.join(files)} fail without any mutant")
                return 2
        for file, (files, rows) in wanted.items():
            killed = 0
            for old, new in rows:
                (copy / "snipkit" / file).write_text(sources[file].replace(old, new))
                survived = survives(copy, files, log)
                killed += not survived
                print(f"{'survived' if survived else 'killed  '}  {file}: {old!r} -> {new!r}", flush=True)
            (copy / "snipkit" / file).write_text(sources[file])
            scores[file] = killed, len(rows)
            print(f"{killed:3} of {len(rows):3} killed  {file}", flush=True)
    killed, total = (sum(parts) for parts in zip(*scores.values()))
    print(f"{killed} of {total} killed: {100 * killed / total:.0f} %")
    return int(killed < total)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
