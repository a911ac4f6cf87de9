import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax import media, metrics
from deepsteg_jax.channels import ladder
from deepsteg_jax.schemes.robust import secret_codec
from experiments.systems import KEY, PHASE_BINS, Context, information, robust_system
from tests.synthetic import in_planes, smooth


def test_information_is_that_of_a_channel_that_adds():
    rng = np.random.default_rng(0)
    turns = rng.integers(-3, 4, 100_000)
    assert information(turns.astype(float)) == pytest.approx(len(turns) * np.log2(PHASE_BINS), rel=0.01)
    assert information(rng.uniform(-2, 2, 100_000)) / 100_000 == pytest.approx(0, abs=0.001)
    # Errors over half the circle leave one bit of each symbol.
    assert information(rng.uniform(0, 0.5, (100, 1000)) + 7) == pytest.approx(100_000, rel=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not secret_codec.has_encoder(), reason="there is no encoder of secrets")
def test_robust_hides_in_planes_and_counts_what_arrives():
    """A segment and a short one."""
    config = get_config()
    config.update(secret_layers=(("01", 1.0, "C2"),), growth=0.0)
    system, secret = robust_system(config), smooth(40, 36, 48, seed=3)
    assert system.in_planes
    context = Context(KEY, secret.shape)
    stego = system.hide(in_planes(smooth(40, 128, 192) // 2 + 60), secret, context)
    assert isinstance(stego, media.Planes) and stego.y.shape == (40, 128, 192)
    received = ladder.run(ladder.named("C2"), stego).frames
    revealed = system.reveal(received, context)
    for part in (np.s_[:32], np.s_[32:]):
        grey = metrics.mean_psnr(secret[part], context.grey()[part])
        assert metrics.mean_psnr(secret[part], revealed[part]) > grey + 2
    payload, most = system.arrived(received)
    assert 1000 < payload < most
