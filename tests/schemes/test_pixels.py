from configs import video
from deepsteg_jax import loading, models


def test_the_receiver_takes_modulus_and_group_from_the_header(monkeypatch):
    build, built = models.build, []

    def noting(config):
        built.append((config.modulus, config.frames))
        return build(config)

    scheme = loading.load(video.get_config())
    monkeypatch.setattr(models, "build", noting)
    scheme.codec()
    assert scheme.codec(5, 2) is scheme.codec(5, 2)
    assert built == [(3, 4), (5, 2)]
