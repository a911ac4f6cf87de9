import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deepsteg_jax.single_task import single_task


def summed(count, x):
    """(sums of the first 1 to 50 multiples of x, their last step); `count` is of a table."""
    table = jnp.asarray(count)

    def add(i, state):
        total, sums = state
        total += table[i] * x
        return total, lax.dynamic_update_index_in_dim(sums, total, i, 0)

    return lax.fori_loop(0, 50, add, (jnp.zeros_like(x), jnp.zeros((50, *x.shape), x.dtype)))


def test_results_are_the_same_alone_in_a_loop_and_in_a_batch():
    count, x = np.arange(1, 51, dtype=np.int32), jnp.arange(12, dtype=jnp.int32).reshape(3, 4)
    work = single_task(lambda x: summed(count, x))
    total = x * 50 * 51 // 2
    sums = x[:, None] * np.cumsum(count)[:, None]
    for found in (jax.jit(lambda x: lax.map(work, x))(x), jax.jit(jax.vmap(work))(x)):
        np.testing.assert_array_equal(found[0], total)
        np.testing.assert_array_equal(found[1], sums)


def test_loops_lie_in_one_call_on_cpus():
    traced = jax.jit(single_task(lambda x: summed(np.arange(50), x))).trace(jnp.ones(4, jnp.int32))
    text = (
        traced.lower(lowering_platforms=("cpu",)).compile().as_text()
        if jax.default_backend() == "cpu"
        else ""
    )
    assert not text or "while(" not in text[text.index("ENTRY") :]
    assert "inlineable" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "inlineable" not in traced.lower(lowering_platforms=("cuda",)).as_text()
