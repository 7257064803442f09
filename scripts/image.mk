# Images as Make targets: `include image.mk`, and .images/NAME.stamp is built from NAME/Dockerfile.
#
# img-build writes which files it read, so Make starts it only if one of them has changed. If an image is
# based on another one, add a line: `.images/app.stamp: .images/base.stamp`.
#
#   IMG_BUILD         the command; img-build by default
#   IMG_FLAGS         flags for all images
#   IMG_FLAGS_NAME    flags for the image NAME

IMG_BUILD ?= img-build

.images/%.stamp: %/Dockerfile
	@mkdir -p $(@D)
	$(IMG_BUILD) --depfile .images/$*.d --deptarget $@ -t $* $(IMG_FLAGS) $(IMG_FLAGS_$*) $* >/dev/null

-include $(wildcard .images/*.d)
