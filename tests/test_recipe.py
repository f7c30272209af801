"""Recipes: inheritance, overrides, and errors that name the nearest key."""

import tomllib

import pytest
from tiny import dino_folder

from relume.errors import RecipeError
from relume.lab import recipe
from relume.lab.folds import fold_of


@pytest.mark.parametrize("name", recipe.shipped())
def test_every_shipped_recipe_builds(name):
    words: list[str] = []
    if name == "perceive-ir":
        pytest.importorskip("transformers")
        words.append(f'encoders.semantics.weights="{dino_folder()}"')
    made = recipe.load(name, words)
    assert made.name == name
    model = made.build_model()
    # NAFNet of width 32, and Restormer, as their authors count them.
    published = {"sam-deblur": 17_111_907, "perceive-ir": 26_126_644}
    if name in published:
        assert sum(p.numel() for p in model.backbone.parameters()) == published[name]
    else:
        assert sum(p.numel() for p in model.parameters()) <= 2_800_000
    made.build_objective()


def test_the_resolved_recipe_says_everything_and_keeps_its_digest(tmp_path):
    made = recipe.load("relume-s", ["schedule.steps=10", "seed=3"])
    path = tmp_path / "again.toml"
    path.write_text(made.toml())
    again = recipe.load(path)
    assert again.digest == made.digest
    assert tomllib.loads(made.toml())["schedule"]["weight_decay"] == 0.0  # a default, said


def test_a_child_changes_only_what_it_says(tmp_path):
    child = tmp_path / "child.toml"
    child.write_text('extends = "relume-s"\nname = "child"\n[schedule]\nsteps = 7\n')
    made = recipe.load(child)
    parent = recipe.load("relume-s")
    assert made.schedule["steps"] == 7
    assert made.schedule["lr"] == parent.schedule["lr"]
    assert made.digest != parent.digest
    grand = tmp_path / "grand.toml"
    grand.write_text(f'extends = "{child}"\nname = "grand"\n')
    with pytest.raises(RecipeError, match="one level only"):
        recipe.load(grand)


def test_a_table_that_is_set_takes_the_place_of_the_one_before():
    whole = recipe.load("perceive-ir-toy")
    bare = recipe.load("perceive-ir-toy", ["adapters=[]", "encoders={}"])
    assert whole.encoders and not bare.encoders and not bare.build_model().reads
    other = recipe.load("perceive-ir-toy", ['backbone={kind="unet", width=8}', "backbone.width=4"])
    assert other.backbone.model_extra == {"width": 4}
    damage = recipe.load("perceive-ir-toy", ['data.damage={"jpeg:quality=10"=1.0}']).data.damage
    assert damage == {"jpeg:quality=10": 1.0}


def test_the_same_seed_gives_the_same_network():
    a, b = (recipe.load("relume-s").build_model().state_dict() for _ in range(2))
    other = recipe.load("relume-s", ["seed=1"]).build_model().state_dict()
    assert all((a[k] == b[k]).all() for k in a)
    assert any((a[k] != other[k]).any() for k in a)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("schedule.stepz=5", "schedule.stepz is no key of a recipe. Did you mean 'steps'"),
        ("data.photograhs=x", "data.photograhs is no key of a recipe. Did you mean 'photographs'"),
        ("sed=1", "sed is no key of a recipe. Did you mean 'seed'"),
        ("seed=high", "seed: input should be a valid integer"),
        ("seed", "--set takes a.b=v"),
    ],
)
def test_a_wrong_key_or_value_is_one_line(override, says):
    with pytest.raises(RecipeError) as caught:
        recipe.load("relume-s", [override])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("backbone.kind=nafnot", "Did you mean 'nafnet'"),
        ("backbone.widht=5", "does not take these arguments"),
        ("objective.loss=l2", "is none of"),
    ],
)
def test_a_wrong_kind_names_the_table(override, says):
    made = recipe.load("relume-s", [override])
    with pytest.raises(RecipeError, match=says):
        made.build_objective() if "objective" in override else made.build_model()


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="Did you mean 'relume-s'"):
        recipe.load("relume-x")
    with pytest.raises(RecipeError, match="cannot be read"):
        recipe.load("nowhere.toml")


def test_a_recipe_of_pairs_says_nothing_of_damage(tmp_path):
    made, plain = recipe.load("sam-deblur"), recipe.load("relume-s")
    assert set(made.resolved()["data"]) == {"photographs", "lq", "validation"}
    assert (
        "lq" not in plain.resolved()["data"] | plain.resolved()["validation"]
    )  # what came later leaves old digests alone
    path = tmp_path / "again.toml"
    path.write_text(made.toml())
    assert recipe.load(path).digest == made.digest
    assert recipe.load("sam-deblur", ['data.lq="elsewhere/*"']).digest != made.digest


@pytest.mark.parametrize(
    ("name", "override", "says"),
    [
        ("sam-deblur", "data.counts=[0.5, 0.5]", "nothing is made: leave out counts"),
        ("sam-deblur", "data.windows=[0.3, 1.0]", "leave out windows"),
        ("relume-s", "data.windows=[]", "mosaic goes with windows"),
        ("sam-deblur", 'data.lq=""', "data: damage is missing, or lq where there are pairs"),
        ("relume-s", 'validation.lq="b/*"', "validation: lq and gt are halves of pairs: give both"),
        ("relume-s", "data.lq=blur", "leave out windows, mosaic, soft, damage, counts, factors"),
        ("relume-s", "data.without=2/2", "data: without: a fold is written as 0/2"),
        ("sam-deblur", "data.without=0/2", "leave out without"),
        (
            "sam-deblur-toy",
            'priors.regions.folds={1={kind="grid"}, 2={kind="grid"}}',
            "priors.regions: folds are numbered from 0, and two at least",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_named(name, override, says):
    with pytest.raises(RecipeError) as caught:
        recipe.load(name, [override])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layout_belongs_to_a_prior_and_to_the_digest():
    reads = 'adapters=[{kind="concat", reads="regions"}]'
    made = [
        recipe.load("sam-deblur-toy", [reads, *more])
        for more in ([], ['priors.regions.layout=""'], ["priors.regions.layout=grid"])
    ]
    plain, empty, laid = (one.build_sources()["regions"].prior for one in made)
    assert plain.identity == empty.identity != laid.identity
    assert "layout" not in made[1].toml() and "layout" in made[2].toml()
    wrong = recipe.load("sam-deblur-toy", [reads, "priors.regions.layout=gird"])
    with pytest.raises(RecipeError, match="Did you mean 'grid'"):
        wrong.build_sources()


def test_the_folds_of_a_prior_change_what_they_say_and_no_more():
    reads = 'adapters=[{kind="concat", reads="regions"}]'
    plain = recipe.load("sam-deblur-toy", [reads])
    crossed = recipe.load(
        "sam-deblur-toy",
        [
            reads,
            "priors.regions.merge=3.0",
            "priors.regions.folds.0.scale=50.0",
            "priors.regions.folds.1.scale=70.0",
        ],
    )
    assert "folds" not in plain.toml() and "without" not in plain.toml()
    source = crossed.build_sources()["regions"]
    said = [prior.identity for prior in (source.prior, *source.folds)]
    assert [one["scale"] for one in said] == [60.0, 50.0, 70.0]
    assert [one["merge"] for one in said] == [3.0] * 3
    for name in ("a.jpg", "b.jpg", "lake.jpg", "gate.jpg"):
        assert source.looking_at(name) is source.folds[fold_of(name, 2)]
    pairs = recipe.load(
        "sam-deblur", [reads, *(f"priors.regions.folds.{i}.scale=5.0" for i in range(2))]
    )
    with pytest.raises(RecipeError, match="real pairs have none"):
        pairs.build_sources()
