"""Emitters of operators on single frames: dense, elementwise, normalization, shape."""

from __future__ import annotations

from onnx import TensorProto

from converters.onnx.emitter import Framewise, emits
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import FramePool, LayerNorm, Permute, Reshape, RMSNorm, Slice
from lmu_deploy.core.graph.linear import Affine, Conv2d, Dense, Embedding
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat, Multiply

POOLED_AXES = 3
"""Axes that ONNX Runtime pools at most."""


@emits(Dense)
class DenseEmitter(Framewise[Dense]):
    """MatMul and Add."""

    def frames(self, *inputs: str) -> str:
        """Add ``x W + b``."""
        if self.operator.bias is None:
            return self.output_of("MatMul", [inputs[0], self.weight("kernel")])
        product = self.part_of("MatMul", [inputs[0], self.weight("kernel")], "product")
        return self.output_of("Add", [product, self.weight("bias")])


@emits(Affine)
class AffineEmitter(Framewise[Affine]):
    """Mul and Add."""

    def frames(self, *inputs: str) -> str:
        """Add ``x * scale + offset``."""
        scaled = self.part_of("Mul", [inputs[0], self.weight("scale")], "scaled")
        return self.output_of("Add", [scaled, self.weight("offset")])


@emits(Embedding)
class EmbeddingEmitter(Framewise[Embedding]):
    """Gather of rows of the table."""

    def frames(self, *inputs: str) -> str:
        """Add the rows of tokens (..., 1)."""
        last = self.graph.integers(-1)
        tokens = self.part_of("Squeeze", [inputs[0], last], "tokens")
        index = self.part_of("Cast", [tokens], "index", to=7)  # INT64
        return self.output_of("Gather", [self.weight("table"), index], axis=0)


@emits(Conv2d)
class Conv2dEmitter(Framewise[Conv2d]):
    """Conv of images with channels first."""

    def frames(self, *inputs: str) -> str:
        """Add the convolution of every frame."""
        top, bottom, left, right = self.operator.padding
        images = self.one_by_one(inputs[0], "images")
        first = self.part_of("Transpose", [images], "channels_first", perm=[0, 3, 1, 2])
        kernel = self.derive("kernel.transposed", "Transpose", [self.weight("kernel")],
                             perm=[3, 2, 0, 1])  # fmt: skip
        weights = [kernel] if self.operator.bias is None else [kernel, self.weight("bias")]
        convolved = self.part_of(
            "Conv",
            [first, *weights],
            "convolved",
            strides=list(self.operator.strides),
            dilations=list(self.operator.dilations),
            pads=[top, left, bottom, right],
            group=self.operator.groups,
        )
        last = self.part_of("Transpose", [convolved], "channels_last", perm=[0, 2, 3, 1])
        return self.together(last, inputs[0])


@emits(Activation)
class ActivationEmitter(Framewise[Activation]):
    """The operator of ONNX, or several of them."""

    def frames(self, *inputs: str) -> str:
        """Add f(x)."""
        name, slope = self.operator.name, self.operator.slope
        return self.graph.activation(name, inputs[0], self.output, slope)


@emits(Add, Multiply)
class CombinationEmitter(Framewise[Add | Multiply]):
    """Add or Mul, from the first input to the last."""

    def frames(self, *inputs: str) -> str:
        """Add the sum or the product."""
        op = "Add" if isinstance(self.operator, Add) else "Mul"
        found = inputs[0]
        for x in inputs[1:-1]:
            found = self.part_of(op, [found, x], "so_far")
        return self.output_of(op, [found, inputs[-1]])


@emits(Concat)
class ConcatEmitter(Framewise[Concat]):
    """Concat on the last axis."""

    def frames(self, *inputs: str) -> str:
        """Add all features one behind the other."""
        return self.output_of("Concat", inputs, axis=-1)


@emits(LayerNorm)
class LayerNormEmitter(Framewise[LayerNorm]):
    """LayerNormalization."""

    def frames(self, *inputs: str) -> str:
        """Add the normalization of the last axis."""
        weights = self.weight("scale"), self.weight("offset")
        if self.graph.real == TensorProto.DOUBLE:
            return self._in_double(inputs[0], *weights)
        return self.output_of(
            "LayerNormalization", [inputs[0], *weights], axis=-1, epsilon=self.operator.epsilon
        )

    def _in_double(self, x: str, scale: str, offset: str) -> str:
        """Add it in several operators: the attribute epsilon of one would be float32."""
        mean = self.part_of("ReduceMean", [x], "mean", axes=[-1], keepdims=1)
        centered = self.part_of("Sub", [x, mean], "centered")
        square = self.part_of("Mul", [centered, centered], "square")
        variance = self.part_of("ReduceMean", [square], "variance", axes=[-1], keepdims=1)
        epsilon = self.graph.number(self.operator.epsilon)
        root = self.part_of("Sqrt", [self.part_of("Add", [variance, epsilon], "padded")], "root")
        normalized = self.part_of("Div", [centered, root], "normalized")
        scaled = self.part_of("Mul", [normalized, scale], "scaled")
        return self.output_of("Add", [scaled, offset])


@emits(RMSNorm)
class RMSNormEmitter(Framewise[RMSNorm]):
    """The division by the root of the mean square."""

    def frames(self, *inputs: str) -> str:
        """Add the normalization of the last axis."""
        square = self.part_of("Mul", [inputs[0], inputs[0]], "square")
        power = self.part_of("ReduceMean", [square], "power", axes=[-1], keepdims=1)
        padded = self.part_of("Add", [power, self.graph.number(self.operator.epsilon)], "padded")
        root = self.part_of("Sqrt", [padded], "root")
        return self.output_of(
            "Mul", [self.part_of("Div", [inputs[0], root], "normalized"), self.weight("scale")]
        )


@emits(Reshape)
class ReshapeEmitter(Framewise[Reshape]):
    """Reshape that leaves batch and time."""

    def frames(self, *inputs: str) -> str:
        """Add the frames with other axes."""
        return self.reshaped(inputs[0], "", *[0] * self.leading, *self.operator.after)


@emits(Permute)
class PermuteEmitter(Framewise[Permute]):
    """Transpose that leaves batch and time."""

    def frames(self, *inputs: str) -> str:
        """Add the frames with permuted axes."""
        order = [self.leading + axis for axis in self.operator.order]
        return self.output_of("Transpose", inputs, perm=[*range(self.leading), *order])


@emits(Slice)
class SliceEmitter(Framewise[Slice]):
    """Slice of the last axis."""

    def frames(self, *inputs: str) -> str:
        """Add some of the features."""
        bounds = [self.graph.integers(n) for n in (self.operator.begin, self.operator.end, -1)]
        return self.output_of("Slice", [inputs[0], *bounds])


@emits(FramePool)
class FramePoolEmitter(Framewise[FramePool]):
    """AveragePool or MaxPool of frames with channels first."""

    def frames(self, *inputs: str) -> str:
        """Add the pooling of every frame."""
        axes = len(self.operator.widths)
        if axes > POOLED_AXES:
            raise InputError(
                f"node {self.node.name} pools {axes} axes of a frame, and ONNX Runtime pools at "
                f"most {POOLED_AXES}; pool one axis after the other."
            )
        frames = self.one_by_one(inputs[0], "frames")
        first = self.part_of("Transpose", [frames], "channels_first",
                             perm=[0, axes + 1, *range(1, axes + 1)])  # fmt: skip
        pooled = self.part_of(
            "MaxPool" if self.operator.kind == "max" else "AveragePool",
            [first],
            "pooled",
            kernel_shape=list(self.operator.widths),
            strides=list(self.operator.strides),
        )
        last = self.part_of("Transpose", [pooled], "channels_last",
                            perm=[0, *range(2, axes + 2), 1])  # fmt: skip
        return self.together(last, inputs[0])
