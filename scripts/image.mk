# Images as targets of Make: `include image.mk`, and .images/NAME.stamp is made of NAME/Dockerfile.
#
# img-build says which files it has read, so that Make starts it only if one of them has changed. An image that another one
# stands on is a line of yours: `.images/app.stamp: .images/base.stamp`.
#
#   IMG_BUILD         the command; img-build by default
#   IMG_FLAGS         flags for all images
#   IMG_FLAGS_NAME    flags for one

IMG_BUILD ?= img-build

.images/%.stamp: %/Dockerfile
	@mkdir -p $(@D)
	$(IMG_BUILD) --depfile .images/$*.d --deptarget $@ -t $* $(IMG_FLAGS) $(IMG_FLAGS_$*) $* >/dev/null

-include $(wildcard .images/*.d)
